"""CORe50 in both of its layouts: sessions, objects and frames are what the paths say."""

import os
import pickle
import random
from functools import cache

import numpy as np
import pytest
import torch
from pictures import prepared
from PIL import Image

from harness import plugins
from harness.data import shelf
from harness.data.base import DataError
from harness.data.inspection import check
from harness.data.scenarios import split_classes
from harness.data.sets import core50
from harness.errors import UserError

# Frames of an object in a session, counted from 0 or from 1, as in the real one.
NUMBERS = {True: (0, 200), False: (1,)}


@cache
def paths():
    """Every object in every session with one or two frames, in the order of the numbers."""
    return tuple(
        f"s{session}/o{instance}/C_{session:02}_{instance:02}_{number:03}.png"
        for session in range(1, 12)
        for instance in range(1, 51)
        for number in NUMBERS[(session + instance) % 3 == 0]
    )


def label(path):
    return int(path.split("/")[1].removeprefix("o")) - 1


@cache
def frame(path, *, size=(6, 6)):
    coarse = np.random.default_rng([*path.encode()]).integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def resized(image, size):
    """What is expected of a frame, uint8 (3, size, size)."""
    image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of frames, of which tests make copies by hard links."""
    folder = tmp_path_factory.mktemp("core50") / "core50_128x128"
    for path in paths():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        frame(path).save(folder / path)
    (folder / "s1" / "o1" / "Thumbs.db").write_text("not a frame")
    (folder / "s1" / "o1" / "._C_01_01_000.png").write_text("of a Macintosh")
    (folder / "s1" / "o1" / "C_01_01_000 (copy).png").write_text("not a frame either")
    (folder / "README.txt").write_text("core50")
    return folder


@pytest.fixture
def files(written, tmp_path):
    for path in written.rglob("*.*"):
        target = tmp_path / "core50" / "core50_128x128" / path.relative_to(written)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    return tmp_path


@pytest.fixture
def array(tmp_path):
    """The two files of the other layout, their rows in another order."""
    write_array(tmp_path, random.Random(0).sample(paths(), len(paths())))
    return tmp_path


def write_array(root, rows, *, save=np.savez):
    rows = list(rows)
    (root / "core50").mkdir(exist_ok=True)
    save(root / "core50" / "core50_imgs.npz", x=np.stack([np.asarray(frame(row)) for row in rows]))
    (root / "core50" / "paths.pkl").write_bytes(pickle.dumps(rows, protocol=2))


def frames(root, **settings):
    return shelf.read("core50", core50.Config(**{"size": 8, **settings}), root)


def assert_same(first, second):
    for one, other in ((first.train, second.train), (first.test, second.test)):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


@pytest.mark.parametrize("tests", [(11,), (3, 7, 10)])
def test_sessions_are_split_objects_are_labels_and_frames_are_in_order(files, tests):
    dataset = frames(files, test_sessions=tests)
    for split, wanted in ((dataset.test, True), (dataset.train, False)):
        mine = [path for path in paths() if (int(path[1:].split("/")[0]) in tests) == wanted]
        assert split.y.tolist() == [label(path) for path in mine]
        assert torch.equal(split.x, torch.stack([resized(frame(path), 8) for path in mine]))
        assert split.y.unique().tolist() == list(range(50))
    assert len(dataset.train) + len(dataset.test) == len(paths())


def test_the_array_of_images_gives_the_same_as_the_files(files, array, tmp_path):
    from_files = frames(files)
    (tmp_path / "core50" / "core50_128x128").rename(tmp_path / "gone")
    (tmp_path / "prepared").rename(tmp_path / "prepared before")
    assert_same(frames(array), from_files)
    few = frames(array, per_class=4, test_per_class=1, size=5)
    (tmp_path / "gone").rename(tmp_path / "core50" / "core50_128x128")
    assert_same(few, frames(files, per_class=4, test_per_class=1, size=5))
    left_over = {path.name for path in (tmp_path / "prepared").glob("*/*")}
    kinds = ("npy", "labels.npy", "session.npy")
    assert left_over == {"manifest.json", *(f"{p}.{k}" for p in ("train", "test") for k in kinds)}


def test_the_frames_may_also_lie_in_the_root_itself_and_the_array_be_compressed(tmp_path):
    write_array(tmp_path, paths(), save=np.savez_compressed)
    first = frames(tmp_path)
    for path in (tmp_path / "core50").iterdir():
        path.rename(tmp_path / path.name)
    assert_same(frames(tmp_path), first)


def test_resized_rows_are_not_made_again_unless_the_array_changes(array, monkeypatch):
    first = frames(array)
    with monkeypatch.context() as patch:
        patch.setattr(core50, "stored_rows", None)
        assert_same(frames(array), first)
    manifest = array / "prepared" / prepared(array)[0] / "manifest.json"
    before = manifest.read_text()
    write_array(array, paths(), save=np.savez_compressed)
    assert_same(frames(array), first)
    assert manifest.read_text() != before


def test_a_damaged_file_of_resized_rows_is_made_again(array):
    first = frames(array).test.x.clone()
    path = array / "prepared" / prepared(array)[0] / "test.npy"
    path.write_bytes(path.read_bytes()[:-10])
    assert torch.equal(frames(array).test.x, first)


def test_frames_know_their_session_in_files_and_in_the_array(files, array):
    for root in (files, array):
        dataset = frames(root, test_sessions=(3, 7))
        assert set(dataset.test.session.tolist()) == {3, 7}
        assert set(dataset.train.session.tolist()) == set(range(1, 12)) - {3, 7}


def test_validation_never_cuts_a_session(files):
    dataset = frames(files)
    scenario = split_classes(
        dataset, num_tasks=10, distribution="regular", order="seeded", validation=0.25, seed=3
    )
    session = dataset.train.session
    held, kept = (
        {i for task in scenario.tasks for i in session[getattr(task, part)].tolist()}
        for part in ("validation", "train")
    )
    assert len(held) == 2  # a quarter of ten
    assert not held & kept
    for task in scenario.tasks:
        labels = scenario.dataset.train.y
        assert labels[task.validation].unique().tolist() == list(task.classes)
        assert labels[task.train].unique().tolist() == list(task.classes)


def test_fewer_images_are_spread_over_the_frames_of_a_class(files):
    whole, few = frames(files), frames(files, per_class=3, test_per_class=1)
    assert few.train.y.bincount().tolist() == [3] * 50
    assert few.test.y.bincount().tolist() == [1] * 50
    for own in range(50):
        images, kept = whole.train.x[whole.train.y == own], few.train.x[few.train.y == own]
        assert torch.equal(kept, images[[0, len(images) // 3, 2 * len(images) // 3]])
        assert torch.equal(few.test.x[few.test.y == own][0], whole.test.x[whole.test.y == own][0])
    most = int(whole.train.y.bincount().min())
    message = f"core50, train: {most + 1} images a class were asked for; there are 1 to {most}"
    with pytest.raises(DataError, match=message):
        frames(files, per_class=most + 1)
    with pytest.raises(DataError, match="test: 0 images a class were asked for"):
        frames(files, test_per_class=0)


def test_frames_of_other_sizes_gray_ones_and_ones_with_a_palette_are_squared(files):
    odd = {
        "s1/o1/C_01_01_001.png": ((9, 5), "L"),
        "s11/o50/C_11_50_001.png": ((3, 7), "RGB"),
        "s2/o1/C_02_01_000.png": ((20, 20), "P"),
    }
    for path, (size, mode) in odd.items():
        assert path in paths()
        target = files / "core50" / "core50_128x128" / path
        target.unlink()  # a hard link
        frame(path, size=size).convert(mode).save(target)
    dataset = frames(files)
    test = dataset.test.x[dataset.test.y == 49]
    assert torch.equal(test[0], resized(frame("s11/o50/C_11_50_001.png", size=(3, 7)), 8))
    first = dataset.train.x[dataset.train.y == 0]
    gray = frame("s1/o1/C_01_01_001.png", size=(9, 5)).convert("L")
    assert torch.equal(first[0], resized(gray, 8))


def test_core50_is_as_declared(files):
    config = core50.Config()
    assert config.test_sessions == (11,)
    assert core50.num_classes(config) == 50
    assert core50.image_shape(config) == (3, 224, 224)
    dataset = frames(files, size=16)
    assert (dataset.num_classes, dataset.image_shape) == (50, (3, 16, 16))
    assert dataset.class_names[:6] == (*(f"plug_adapter{i}" for i in range(1, 6)), "mobile_phone1")
    assert dataset.class_names[-1] == "remote_control5"
    assert (dataset.traits.flip, dataset.traits.crop_padding) == (True, 2)


def test_core50_can_be_checked_at_its_full_size(tmp_path):
    rows = [
        f"s{session}/o{instance}/C_{session:02}_{instance:02}_000.png"
        for session in range(1, 12)
        for instance in range(1, 51)
    ]
    write_array(tmp_path, rows)
    shelf.prepare("core50", core50.Config(), tmp_path)
    lines = list(check("core50", core50.Config(), tmp_path))
    assert lines[-1].startswith("core50: 500 train, 50 test images in 50 classes: ok")


def test_a_missing_core50_says_where_it_was_sought_and_how_to_get_it(tmp_path):
    (tmp_path / "core50").mkdir()
    (tmp_path / "core50" / "core50_imgs.npz").write_bytes(b"")
    with pytest.raises(DataError) as error:
        frames(tmp_path)
    message = str(error.value)
    lacks = "lacks core50_128x128 (or core50_imgs.npz and paths.pkl)"
    assert f"{tmp_path / 'core50'}: {lacks}" in message
    assert "ROOT/core50/core50_128x128" in message
    with pytest.raises(UserError, match=r"core50 --download: core50_128x128\.zip"):
        shelf.prepare("core50", core50.Config(), tmp_path, download=True)


def test_an_object_without_frames_is_named(files, tmp_path):
    folder = tmp_path / "core50" / "core50_128x128" / "s4" / "o17"
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="core50_128x128: no frame of object 17 in session 4"):
        frames(files)
    folder.rmdir()
    with pytest.raises(DataError, match="no frame of object 17 in session 4"):
        frames(files)


def test_a_frame_in_the_folder_of_another_object_is_named(files, tmp_path):
    folder = tmp_path / "core50" / "core50_128x128" / "s4"
    (folder / "o17" / "C_04_17_200.png").rename(folder / "o18" / "C_04_17_200.png")
    with pytest.raises(DataError, match=r"'s4/o18/C_04_17_200\.png' is no path of a frame"):
        frames(files)


def test_a_corrupt_frame_is_named(files, tmp_path):
    path = tmp_path / "core50" / "core50_128x128" / "s11" / "o2" / "C_11_02_001.png"
    content = path.read_bytes()
    path.unlink()  # a hard link
    path.write_bytes(content[:60])
    with pytest.raises(DataError, match="no readable image") as error:
        frames(files)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["s1/o1/C_01_01_000.jpg", *paths()[1:]], "is no path of a frame"),
        (["core50_128x128/s1/o1/C_01_01_000.png", *paths()[1:]], "is no path of a frame"),
        (["s1/o2/C_01_01_000.png", *paths()[1:]], "is no path of a frame"),
        ([*paths(), "s12/o1/C_12_01_000.png"], "an unknown frame of object 1 in session 12"),
        (list(paths()[:-3]), "no frame of object 49 in session 11"),
        ([*paths(), paths()[0]], r"x is uint8 of shape .*, not \d+ images of bytes, one for each"),
        ({"paths": paths()}, "holds no list of texts"),
        ([*paths(), 3], "holds no list of texts"),
    ],
)
def test_a_fault_in_the_list_of_paths_is_named(array, rows, message):
    (array / "core50" / "paths.pkl").write_bytes(pickle.dumps(rows))
    with pytest.raises(DataError, match=message):
        frames(array)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_that_would_run_something_is_refused(array, monkeypatch):
    monkeypatch.chdir(array)
    path = array / "core50" / "paths.pkl"
    path.write_bytes(pickle.dumps([*paths(), Harmful()]))
    with pytest.raises(DataError, match=r"refused, because it would load .*mkdir") as error:
        frames(array)
    assert str(path) in str(error.value)
    assert not (array / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([*paths()])[:-100], b"\x80\x63."])
def test_a_damaged_pickle_is_named(array, content):
    (array / "core50" / "paths.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"paths\.pkl: damaged pickle"):
        frames(array)


def test_a_list_that_python_2_wrote_is_read(array):
    first = frames(array)
    path = array / "core50" / "paths.pkl"
    rows = pickle.loads(path.read_bytes())  # noqa: S301 - written above
    path.write_bytes(b"(l" + b"".join(f"S'{row}'\na".encode() for row in rows) + b".")
    assert_same(frames(array), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((len(paths()), 6, 6), np.uint8)}, f"not {len(paths())} images of bytes"),
        ({"x": np.zeros((len(paths()), 6, 6, 3), np.float32)}, "x is float32 of shape"),
        ({"y": np.zeros(3, np.uint8)}, "lacks x"),
    ],
)
def test_an_array_of_something_else_is_refused(array, change, message):
    np.savez(array / "core50" / "core50_imgs.npz", **change)
    with pytest.raises(DataError, match=message):
        frames(array)


def test_a_corrupt_array_is_named_and_leaves_nothing_behind(array):
    path = array / "core50" / "core50_imgs.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as error:
        frames(array)
    assert str(path) in str(error.value)
    assert prepared(array) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"test_sessions": []},
        {"test_sessions": [12]},
        {"test_sessions": [3, 3]},
        {"test_sessions": list(range(1, 12))},
        {"size": 0},
    ],
)
def test_impossible_settings_of_core50_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        plugins.component("data set", "core50", settings, where="tests")

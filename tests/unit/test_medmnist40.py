"""MedMNIST-40: which images of seven files are kept, and that each has its own class."""

import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from pictures import prepared

from harness import plugins
from harness.data import npz, shelf
from harness.data.base import DataError
from harness.data.inspection import check
from harness.data.sets import medmnist40
from harness.errors import UserError

COLOUR = {"pathmnist", "dermamnist", "bloodmnist"}

# Images of each class. The totals of every set are those of medmnist/info.py. Of octmnist's
# training images and of tissuemnist only the totals are real, shared out so that no class is small.
PUBLISHED = {
    "pathmnist": (
        (9366, 9509, 10360, 10401, 8006, 12182, 7886, 9401, 12885),
        (1338, 847, 339, 634, 1035, 592, 741, 421, 1233),
    ),
    "dermamnist": ((228, 359, 769, 80, 779, 4693, 99), (66, 103, 220, 23, 223, 1341, 29)),
    "octmnist": ((24369, 24369, 24369, 24370), (250, 250, 250, 250)),
    "pneumoniamnist": ((1214, 3494), (234, 390)),
    "breastmnist": ((147, 399), (42, 114)),
    "bloodmnist": (
        (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
        (244, 624, 311, 579, 243, 284, 666, 470),
    ),
    "tissuemnist": ((20683,) * 7 + (20685,), (5910,) * 8),
}
TOTALS = {  # medmnist/info.py
    "pathmnist": (89996, 7180),
    "dermamnist": (7007, 2005),
    "octmnist": (97477, 1000),
    "pneumoniamnist": (4708, 624),
    "breastmnist": (546, 156),
    "bloodmnist": (11959, 3421),
    "tissuemnist": (165466, 47280),
}


def shuffled_labels(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def small_counts(flag, number):
    """Classes of 2 to 9 images."""
    return [2 + (3 * label + number) % 8 for label in range(len(medmnist40.CLASSES[flag]))]


def write_files(root, *, size=28, compress=True, counts=small_counts):
    """The seven files; what was written, by flag and split, as images and labels."""
    folder, written = root / "medmnist", {}
    folder.mkdir(exist_ok=True)
    for number, flag in enumerate(medmnist40.CLASSES):
        arrays = {}
        for split, seed in (("train", 0), ("val", 1), ("test", 2)):
            labels = shuffled_labels(counts(flag, number + seed), 10 * number + seed)
            channels = (3,) if flag in COLOUR else ()
            rng = np.random.default_rng(100 * number + seed)
            shape = (len(labels), size, size, *channels)
            arrays[f"{split}_images"] = rng.integers(0, 256, shape, np.uint8)
            arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
            written[flag, split] = arrays[f"{split}_images"], labels
        save = np.savez_compressed if compress else np.savez
        save(folder / f"{flag}{'' if size == 28 else f'_{size}'}.npz", **arrays)
    return written


def medical(root, **settings):
    return shelf.read("medmnist40", medmnist40.Config(**{"size": 28, **settings}), root)


def change(path, **arrays):
    """Replaces arrays of a file, or removes them if they are None."""
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files} | arrays
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_the_caps_of_the_paper_make_its_numbers_of_images():
    kept = [0, 0]
    for flag, of_splits in PUBLISHED.items():
        assert len(of_splits[0]) == len(of_splits[1]) == len(medmnist40.CLASSES[flag])
        assert tuple(map(sum, of_splits)) == TOTALS[flag]
        for split, cap in enumerate((1000, 50)):
            labels, classes = shuffled_labels(of_splits[split]), len(of_splits[split])
            rows = medmnist40.kept_rows(labels, classes=classes, cap=cap, seed=0)
            assert np.bincount(labels[rows]).tolist() == [min(n, cap) for n in of_splits[split]]
            kept[split] += len(rows)
    assert kept == [34_554, 1_944]
    config = medmnist40.Config()
    assert (config.per_class, config.test_per_class) == (1000, 50)


def test_kept_rows_ascend_are_drawn_and_those_of_a_smaller_cap_are_among_them():
    labels = shuffled_labels((40, 7, 100))
    few, more = (medmnist40.kept_rows(labels, classes=3, cap=cap, seed=3) for cap in (5, 20))
    assert (np.diff(more) > 0).all()
    assert set(few) < set(more)
    assert np.bincount(labels[more]).tolist() == [20, 7, 20]
    assert set(np.flatnonzero(labels == 1)) <= set(more)
    assert set(more) != set(medmnist40.kept_rows(labels, classes=3, cap=20, seed=4))
    of_class = np.flatnonzero(labels == 2)
    in_class = np.flatnonzero(np.isin(of_class, more))
    assert in_class.max() >= 50  # neither the first rows of a class
    legacy = np.random.RandomState(3).permutation(100)[:20]  # nor others than these
    assert in_class.tolist() == sorted(legacy)


@pytest.mark.parametrize("compress", [True, False])
def test_images_are_those_of_the_files_with_labels_that_count_on(tmp_path, compress):
    written = write_files(tmp_path, compress=compress)
    dataset = medical(tmp_path, per_class=5, test_per_class=3)
    for split, name, cap in ((dataset.train, "train", 5), (dataset.test, "test", 3)):
        images, labels, offset = [], [], 0
        for flag, classes in medmnist40.CLASSES.items():
            pixels, local = written[flag, name]
            rows = medmnist40.kept_rows(local, classes=len(classes), cap=cap, seed=0)
            for row in rows:
                image = pixels[row]
                gray = image.ndim == 2
                images.append(np.stack([image if gray else image[..., c] for c in range(3)]))
                labels.append(offset + local[row])
            offset += len(classes)
        assert split.y.tolist() == labels
        assert np.array_equal(split.x.numpy(), np.stack(images))
        assert split.y.dtype == torch.int64
        assert split.y.unique().tolist() == list(range(40))
    assert dataset.class_names[9] == "dermamnist: actinic keratoses and intraepithelial carcinoma"
    assert dataset.class_names[32] == "tissuemnist: collecting duct, connecting tubule"
    assert len(set(dataset.class_names)) == 40


def test_another_seed_keeps_other_images_and_the_same_seed_the_same(tmp_path):
    write_files(tmp_path)
    first, second = (medical(tmp_path, per_class=3, data_seed=seed) for seed in (0, 1))
    assert first.train.y.bincount().tolist() == second.train.y.bincount().tolist()
    assert not torch.equal(first.train.x, second.train.x)
    assert len(prepared(tmp_path)) == 2
    shutil.rmtree(tmp_path / "prepared")
    assert torch.equal(medical(tmp_path, per_class=3).train.x, first.train.x)


def test_a_large_file_is_read_in_blocks(tmp_path, monkeypatch):
    path = tmp_path / "large.npz"
    images = np.zeros((6000, 64, 64), np.uint8)
    images[:, 0, 0] = np.arange(6000) % 251
    np.savez_compressed(path, x=images)
    rows = np.array([0, 255, 256, 3000, 5999])
    tracemalloc.start()
    picked = np.concatenate(list(npz.stored_rows(path, "x", rows)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(picked, images[rows])
    assert peak < images.nbytes / 4
    for block in (101, 6000, 10_000):
        monkeypatch.setattr(npz, "BLOCK", block)
        picked = np.concatenate(list(npz.stored_rows(path, "x", rows)))
        assert np.array_equal(picked, images[rows])


def test_what_was_kept_is_not_read_again_unless_a_file_changes(tmp_path, monkeypatch):
    write_files(tmp_path)
    first = medical(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(medmnist40, "stored_rows", None)
        assert torch.equal(medical(tmp_path).train.x, first.train.x)
    write_files(tmp_path, counts=lambda flag, _: [3] * len(medmnist40.CLASSES[flag]))
    assert len(medical(tmp_path).train) == 120


def test_every_size_has_files_of_its_own(tmp_path):
    write_files(tmp_path, size=28)
    write_files(tmp_path, size=64)
    assert medical(tmp_path, size=64).image_shape == (3, 64, 64)
    assert medical(tmp_path, size=28).image_shape == (3, 28, 28)
    (tmp_path / "medmnist" / "octmnist.npz").replace(tmp_path / "medmnist" / "octmnist_64.npz")
    with pytest.raises(DataError, match=r"octmnist_64\.npz: train_images are .*64x64 pixels each"):
        medical(tmp_path, size=64)


def test_medmnist40_is_as_declared(tmp_path):
    config = medmnist40.Config()
    assert medmnist40.num_classes(config) == 40
    assert medmnist40.image_shape(config) == (3, 224, 224)
    write_files(tmp_path)
    traits = medical(tmp_path).traits
    assert (traits.flip, traits.crop_padding) == (True, 28 // 8)
    write_files(tmp_path, size=224, counts=lambda flag, _: [1] * len(medmnist40.CLASSES[flag]))
    shelf.prepare("medmnist40", config, tmp_path)
    lines = list(check("medmnist40", config, tmp_path))
    assert lines[-1].startswith("medmnist40: 40 train, 40 test images in 40 classes: ok")
    assert "train: 40 images; published: 34,554; 40 classes differ" in "\n".join(lines)
    assert "test: 40 images; published: 1,944; 40 classes differ" in "\n".join(lines)


def test_missing_files_are_named_with_how_to_get_them(tmp_path):
    write_files(tmp_path)
    (tmp_path / "medmnist" / "tissuemnist.npz").unlink()
    with pytest.raises(DataError) as error:
        medical(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'medmnist'}: lacks tissuemnist.npz" in message
    assert f"{tmp_path / 'medmnist40'}: no such folder" in message
    assert "To get it: the seven files" in message


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": None}, "lacks train_images"),
        ({"test_labels": None}, "lacks test_labels"),
        ({"train_images": np.zeros((4, 28, 28), np.uint8)}, r"not \d+ images of bytes, 28x28"),
        ({"train_images": np.zeros((3, 28, 29), np.uint8)}, "not 3 images of bytes"),
        ({"train_images": np.zeros((3, 28, 28, 4), np.uint8)}, "not 3 images of bytes"),
        ({"train_images": np.zeros((3, 28, 28), np.float32)}, "are float32 of shape"),
        ({"train_images": np.zeros((28, 28, 3), np.uint8).T}, "damaged .an array whose columns"),
        ({"train_labels": np.zeros((3, 1), np.uint8)}, r"classes \[0\], not 0 to 1"),
        ({"train_labels": np.array([[0], [1], [2]])}, r"classes \[0, 1, 2\], not 0 to 1"),
        ({"train_labels": np.array([0, 1, 1])}, "not one a row"),
        ({"train_labels": np.eye(3)[:, :2]}, "not one a row"),
        ({"test_labels": np.array([[0.0], [1.0]])}, "test_labels are float64"),
    ],
)
def test_a_fault_in_a_file_is_named(tmp_path, arrays, message):
    write_files(tmp_path)
    path = tmp_path / "medmnist" / "breastmnist.npz"
    three = {
        "train_images": np.zeros((3, 28, 28), np.uint8),
        "train_labels": np.array([[0], [1], [1]]),
    }
    change(path, **{**three, **arrays})
    with pytest.raises(DataError, match=message) as error:
        medical(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "flipped labels"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_corrupt_file_is_named(tmp_path, compress, damage):
    write_files(tmp_path, compress=compress)
    path = tmp_path / "medmnist" / "bloodmnist.npz"
    member = "train_labels.npy" if damage == "flipped labels" else "test_images.npy"
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(member)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[entry.header_offset + 30 + len(member) + 20 + entry.compress_size // 2] ^= 0xFF
    path.write_bytes(
        {"empty": b"", "text": b"PK\3\4 hello", "truncated": whole[:-500]}.get(damage, flipped)
    )
    with pytest.raises(DataError, match="damaged") as error:
        medical(tmp_path)
    assert str(path) in str(error.value)
    assert prepared(tmp_path) == []


def test_an_array_longer_than_its_header_says_is_refused(tmp_path):
    write_files(tmp_path)
    path = tmp_path / "medmnist" / "octmnist.npz"
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in content.items():
            archive.writestr(name, array + b"\0" if name == "train_images.npy" else array)
    with pytest.raises(DataError, match=r"damaged .train_images is longer than its header says"):
        medical(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"size": 32}, {"per_class": 0}, {"test_per_class": 0}, {"data_seed": -1}]
)
def test_impossible_settings_of_medmnist_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        plugins.component("data set", "medmnist40", settings, where="tests")

"""TinyImageNet in its official layout, or with its validation images sorted into folders."""

import numpy as np
import pytest
import torch
from pictures import prepared
from PIL import Image

from harness import plugins
from harness.data import shelf, tiny_imagenet_shards
from harness.data.base import DataError
from harness.data.inspection import check
from harness.data.sets import tiny_imagenet
from harness.errors import UserError

WNIDS = ("n02124075", "n04067472", "n01443537", "n03014705")  # not in sorted order
GRAY = ("n04067472", 1)  # this training image has one channel


def write_jpeg(path, seed, *, size=(64, 64), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    image.convert(mode).save(path, format="JPEG")


@pytest.fixture
def tiny(tmp_path):
    """Four classes of three training and two test images; the folder tiny-imagenet-200."""
    folder = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(WNIDS):
        for i in range(3):
            path = folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            write_jpeg(path, 10 * number + i, mode="L" if (wnid, i) == GRAY else "RGB")
        boxes = "".join(f"{wnid}_{i}.JPEG\t0\t10\t63\t58\n" for i in range(3))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    for i in range(8):
        write_jpeg(folder / "val" / "images" / f"val_{i}.JPEG", 100 + i)
    lines = [f"val_{i}.JPEG\t{val_class(i)}\t0\t32\t44\t62\n" for i in range(8)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_jpeg(folder / "test" / "images" / "test_0.JPEG", 200)
    (folder / "wnids.txt").write_text("\n".join(WNIDS))
    words = "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\n"
    (folder / "words.txt").write_text(words)
    return folder


def val_class(i):
    return WNIDS[3 * i % 4]


def sort_into_folders(folder, *, below="images"):
    """Move the validation images as the usual scripts do."""
    for i in range(8):
        target = folder / "val" / val_class(i) / below / f"val_{i}.JPEG"
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "val" / "images" / target.name).rename(target)
    (folder / "val" / "images").rmdir()


def load(folder, **settings):
    return shelf.read(
        "tiny_imagenet", tiny_imagenet.Config(**{"classes": 4, **settings}), folder.parent
    )


def pixels(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def images_of(split, label):
    return split.x[split.y == label]


def assert_images(dataset, folder, order):
    """Every class has its own training and test images, in the order of their names."""
    for label, wnid in enumerate(order):
        train = [pixels(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG") for i in range(3)]
        test = [pixels(next(folder.glob(f"val/**/val_{i}.JPEG"))) for i in of_class(wnid)]
        assert torch.equal(images_of(dataset.train, label), torch.stack(train))
        assert torch.equal(images_of(dataset.test, label), torch.stack(test))


def of_class(wnid):
    return [i for i in range(8) if val_class(i) == wnid]


# --- the layout


def test_labels_are_line_numbers_and_images_those_of_the_files(tiny):
    dataset = load(tiny)
    assert (len(dataset.train), len(dataset.test)) == (12, 8)
    assert_images(dataset, tiny, WNIDS)
    names = ("Egyptian cat", "n04067472", "goldfish, Carassius auratus", "n03014705")
    assert dataset.class_names == names


def test_sorted_labels_are_asked_for_and_need_no_other_pixels(tiny):
    load(tiny)
    dataset = load(tiny, order="sorted")
    assert_images(dataset, tiny, sorted(WNIDS))
    assert dataset.class_names[0] == "goldfish, Carassius auratus"
    assert len(prepared(tiny.parent)) == 2


@pytest.mark.parametrize("below", ["images", ""])
@pytest.mark.parametrize("annotations", [True, False])
def test_sorted_validation_images_are_the_same_test_set(tiny, below, annotations):
    official = load(tiny)
    sort_into_folders(tiny, below=below)
    if not annotations:
        (tiny / "val" / "val_annotations.txt").unlink()
    dataset = load(tiny)
    assert_images(dataset, tiny, WNIDS)
    for label in range(4):
        assert torch.equal(images_of(dataset.test, label), images_of(official.test, label))


def test_both_places_are_looked_into(tiny):
    (tiny.parent / "tiny_imagenet").mkdir()
    moved = tiny.rename(tiny.parent / "tiny_imagenet" / tiny.name)
    assert len(load(moved.parent).train) == 12


def test_gray_images_have_three_equal_channels(tiny):
    wnid, i = GRAY
    image = images_of(load(tiny).train, WNIDS.index(wnid))[i]
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    assert image.unique().numel() > 10


def test_a_set_is_as_declared(tiny):
    dataset = load(tiny)
    config = tiny_imagenet.Config()
    assert dataset.name == "tiny_imagenet"
    assert dataset.image_shape == tiny_imagenet.image_shape(config) == (3, 64, 64)
    assert (tiny_imagenet.num_classes(config), dataset.num_classes) == (200, 4)
    assert (dataset.train.x.dtype, dataset.train.y.dtype) == (torch.uint8, torch.int64)
    assert (dataset.traits.flip, dataset.traits.crop_padding) == (True, 4)
    assert dataset.traits.mean == (0.4802, 0.4480, 0.3975)
    assert dataset.traits.std == (0.2770, 0.2691, 0.2821)


def test_images_are_decoded_once(tiny):
    first = load(tiny)
    tiny.rename(tiny.parent / "gone")
    assert torch.equal(load(tiny).train.x, first.train.x)


def test_fewer_images_are_the_first_of_each_class(tiny):
    few, many = load(tiny, per_class=2, test_per_class=1), load(tiny)
    for label in range(4):
        assert torch.equal(images_of(few.train, label), images_of(many.train, label)[:2])
        assert torch.equal(images_of(few.test, label), images_of(many.test, label)[:1])
    with pytest.raises(DataError, match="val: 3 images a class were asked for; there are 1 to 2"):
        load(tiny, test_per_class=3)


def test_other_files_and_windows_line_ends_do_not_matter(tiny):
    (tiny / "train" / WNIDS[0] / "images" / "Thumbs.db").write_text("not an image")
    (tiny / "val" / "images" / "._val_0.JPEG").write_text("of a Macintosh")
    (tiny / "train" / ".DS_Store").write_text("likewise")
    for path in (tiny / "wnids.txt", tiny / "words.txt", tiny / "val" / "val_annotations.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    dataset = load(tiny)
    assert_images(dataset, tiny, WNIDS)
    assert dataset.class_names[0] == "Egyptian cat"


def test_without_words_the_names_are_those_of_the_folders(tiny):
    (tiny / "words.txt").unlink()
    assert load(tiny).class_names == WNIDS


# --- what is wrong with it


@pytest.mark.parametrize("name", ["wnids.txt", "train", "val"])
def test_what_is_missing_is_named_with_how_to_get_the_set(tiny, name):
    (tiny / name).rename(tiny / "elsewhere")
    with pytest.raises(DataError) as error:
        load(tiny)
    message = str(error.value)
    assert f"{tiny}: lacks {name}\n" in message
    assert f"{tiny.parent / 'tiny_imagenet' / tiny.name}: no such folder" in message
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (WNIDS[:3], "3 classes, but the setting `classes` is 4"),
        ((), "0 classes, but the setting `classes` is 4"),
        ((*WNIDS[:3], WNIDS[1]), f"line 4: '{WNIDS[1]}' is named twice"),
        ((WNIDS[0], "../../etc"), "line 2: '../../etc' is no WordNet id such as n02124075"),
        (("<html>",), "line 1: '<html>' is no WordNet id such as n02124075"),
    ],
)
def test_a_wrong_list_of_classes_is_named(tiny, lines, message):
    (tiny / "wnids.txt").write_text("\n".join(lines))
    with pytest.raises(DataError) as error:
        load(tiny)
    assert str(error.value) == f"{tiny / 'wnids.txt'}: {message}"


def test_the_real_number_of_classes_is_expected_unless_set(tiny):
    with pytest.raises(DataError, match=r"4 classes, but the setting `classes` is 200"):
        shelf.read("tiny_imagenet", tiny_imagenet.Config(), tiny.parent)
    with pytest.raises(DataError, match="classes must be at least 1"):
        tiny_imagenet.Config(classes=0)


def test_a_missing_or_empty_class_folder_is_named(tiny):
    images = tiny / "train" / WNIDS[2] / "images"
    for path in images.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"train/{WNIDS[2]}/images: holds no \*\.JPEG file"):
        load(tiny)
    (tiny / "train" / WNIDS[2]).rename(tiny / "elsewhere")
    with pytest.raises(DataError, match=f"train/{WNIDS[2]}: no such folder"):
        load(tiny)


def test_a_class_that_was_not_sorted_out_is_named(tiny):
    sort_into_folders(tiny)
    (tiny / "val" / WNIDS[1]).rename(tiny / "elsewhere")
    with pytest.raises(DataError, match=f"val/{WNIDS[1]}: no such folder"):
        load(tiny)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"_1.JPEG\t{WNIDS[3]}", "_1.JPEG\tn09999999", "line 2: class 'n09999999' is not in wnids"),
        (f"_1.JPEG\t{WNIDS[3]}", "_1.JPEG", "line 2: class '0' is not in wnids"),
        ("val_2.JPEG", "val_1.JPEG", "line 3: 'val_1.JPEG' is named twice"),
        ("val_2.JPEG", "../wnids.txt", "line 3: '../wnids.txt' is not in "),
        ("val_2.JPEG", "val_9.JPEG", "line 3: 'val_9.JPEG' is not in "),
        (f"val_7.JPEG\t{WNIDS[1]}\t0\t32\t44\t62\n", "", "no line has image val_7.JPEG"),
        (f"JPEG\t{WNIDS[2]}", f"JPEG\t{WNIDS[0]}", f"no line has class {WNIDS[2]}"),
    ],
)
def test_a_wrong_annotation_is_named(tiny, old, new, message):
    path = tiny / "val" / "val_annotations.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError) as error:
        load(tiny)
    assert str(error.value).startswith(f"{path}: {message}")


def test_missing_annotations_are_named(tiny):
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt: cannot be read \(No such file"):
        load(tiny)


@pytest.mark.parametrize(
    "place", [f"train/{WNIDS[1]}/images/{WNIDS[1]}_2.JPEG", "val/images/val_3.JPEG"]
)
@pytest.mark.parametrize("size", [(64, 63), (128, 128)])
def test_an_image_of_another_size_is_named_and_not_resized(tiny, place, size):
    write_jpeg(tiny / place, 0, size=size)
    with pytest.raises(DataError) as error:
        load(tiny)
    width, height = size
    expected = f"{tiny / place}: an image of {width}x{height} pixels, not 64x64"
    assert expected in str(error.value)


def test_a_damaged_image_is_named(tiny):
    path = tiny / "val" / "images" / "val_5.JPEG"
    for content in (b"", b"<html>", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="1 images cannot be used") as error:
            load(tiny)
        assert f"{path}: no" in str(error.value)
    assert len(load(tiny, skip_corrupt=True).test) == 7


# --- the arrays that Mammoth fetches


@pytest.fixture
def shards(tmp_path):
    """Four classes in 20 files, three training images and a test image in each."""
    folder = tmp_path / "tiny_imagenet" / "processed"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {}
    for part, count in (("train", 3), ("val", 1)):
        for number in range(20):
            x = rng.integers(0, 256, (count, 64, 64, 3))
            y = (np.arange(count) + number) % 4
            np.save(folder / f"x_{part}_{number + 1:02}.npy", x / 255)
            np.save(folder / f"y_{part}_{number + 1:02}.npy", y)
            pixels.setdefault(part, []).append((x, y))
    return tmp_path, pixels


def from_shards(root, **settings):
    config = tiny_imagenet.Config(**{"classes": 4, **settings})
    return shelf.read("tiny_imagenet", config, root)


def test_shards_give_their_pixels_and_labels(shards):
    root, pixels = shards
    dataset = from_shards(root)
    for split, part in ((dataset.train, "train"), (dataset.test, "val")):
        x = np.concatenate([x for x, _ in pixels[part]]).transpose(0, 3, 1, 2)
        assert np.array_equal(split.x.numpy(), x)
        assert split.y.tolist() == np.concatenate([y for _, y in pixels[part]]).tolist()
    assert dataset.class_names == ("class 0", "class 1", "class 2", "class 3")


def test_fewer_images_of_shards_are_the_first_of_each_class(shards, monkeypatch):
    monkeypatch.setattr(tiny_imagenet_shards, "BLOCK", 2)
    root, _ = shards
    whole, few = from_shards(root), from_shards(root, per_class=6)
    rows = (
        torch.cat([(whole.train.y == label).nonzero()[:6, 0] for label in range(4)]).sort().values
    )
    assert torch.equal(few.train.x, whole.train.x[rows])
    assert torch.equal(few.train.y, whole.train.y[rows])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x_train_07", np.full((3, 64, 64, 3), 1.5), "pixels that are not from 0 to 1"),
        ("x_train_07", np.full((3, 64, 64, 3), np.nan), "pixels that are not from 0 to 1"),
        ("x_train_07", np.zeros((3, 64, 64, 3), np.uint8), "not floats"),
        ("x_train_07", np.zeros((3, 3, 64, 64)), "not floats"),
        ("y_train_07", np.zeros(2, int), "2 labels for 3 images"),
        ("y_train_07", np.zeros(3), "not a number an image"),
        ("y_train_07", np.full(3, 4), "labels from 0 to 4, but classes run from 0 to 3"),
        ("y_train_07", np.array([{}, 1, 2], object), "damaged"),
    ],
)
def test_shards_that_are_not_as_published_are_named(shards, name, content, message):
    root, _ = shards
    np.save(root / "tiny_imagenet" / "processed" / f"{name}.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=message) as error:
        from_shards(root)
    assert "processed" in str(error.value)


def test_shards_have_no_names_to_sort_and_all_must_be_there(shards):
    root, _ = shards
    with pytest.raises(DataError, match="order: the labels of the shards have no names to sort"):
        from_shards(root, order="sorted")
    (root / "tiny_imagenet" / "processed" / "y_val_20.npy").unlink()
    with pytest.raises(DataError, match=r"tiny_imagenet: lacks wnids\.txt"):
        from_shards(root)


# --- on the command line


def test_the_order_of_labels_is_stored_and_a_wrong_one_refused():
    default = plugins.component("data set", "tiny_imagenet", {}, where="tests")
    assert default.settings["order"] == "wnids"
    assert plugins.component(
        "data set", "tiny_imagenet", {"order": "sorted"}, where="tests"
    ).settings == {**default.settings, "order": "sorted"}
    with pytest.raises(UserError, match=r"order: .*'wnids'.*'sorted'.* got .alphabetic"):
        plugins.component("data set", "tiny_imagenet", {"order": "alphabetic"}, where="tests")


def test_the_whole_set_of_classes_can_be_prepared_and_checked(tmp_path):
    source = tmp_path / "one.jpg"
    write_jpeg(source, 0)
    folder = tmp_path / "tiny-imagenet-200"
    wnids = [f"n{number:08}" for number in range(200)]
    for wnid in wnids:
        for place in (f"train/{wnid}/images/{wnid}_0.JPEG", f"val/{wnid}/images/{wnid}.JPEG"):
            (folder / place).parent.mkdir(parents=True)
            (folder / place).hardlink_to(source)
    (folder / "wnids.txt").write_text("\n".join(wnids))
    shelf.prepare("tiny_imagenet", tiny_imagenet.Config(), tmp_path)
    lines = list(check("tiny_imagenet", tiny_imagenet.Config(), tmp_path))
    assert lines[-1].startswith("tiny_imagenet: 200 train, 200 test images in 200 classes: ok")
    with pytest.raises(UserError, match="tiny_imagenet --download: fetch http"):
        shelf.prepare("tiny_imagenet", tiny_imagenet.Config(), tmp_path, download=True)

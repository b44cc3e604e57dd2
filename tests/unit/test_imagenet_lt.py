"""ImageNet-LT is read from its lists: which images, of which class, in which split."""

import pytest
import torch
from pictures import reference, write_picture

from harness.data import shelf
from harness.data.base import DataError
from harness.data.sets import imagenet_lt
from harness.data.sets.imagenet100 import published

NAMES = ("n03", "n01", "n02")  # label 1 is n01
COUNTS = (5, 1, 3)


@pytest.fixture
def tail(tmp_path):
    """Three classes with 5, 1 and 3 training images listed, and two test images each."""
    lines = {"train": [], "test": []}
    labels = {name: label for label, name in enumerate(sorted(NAMES))}
    for number, (name, count) in enumerate(zip(NAMES, COUNTS, strict=True)):
        for part, split, listed in (("train", "train", count), ("test", "val", 2)):
            for i in range(listed + 1):  # one more than is listed
                path = f"{split}/{name}/{name}_{9 - i}.JPEG"
                write_picture(tmp_path / "imagenet" / path, 20 * number + i)
                if i < listed:
                    lines[part].append(f"{path} {labels[name]}")
    for part, of_part in lines.items():
        text = "\n".join(of_part) + "\n"
        (tmp_path / "imagenet" / f"ImageNet_LT_{part}.txt").write_text(text)
    return tmp_path


def load(root, **settings):
    config = imagenet_lt.Config(**{"class_list": NAMES, "size": 16, **settings})
    return shelf.read("imagenet_lt", config, root)


def test_images_are_those_of_the_lists(tail):
    dataset = load(tail)
    assert dataset.class_names == tuple(sorted(NAMES))
    assert dataset.train.y.bincount().tolist() == [1, 3, 5]
    assert dataset.test.y.bincount().tolist() == [2, 2, 2]
    lines = (tail / "imagenet" / "ImageNet_LT_train.txt").read_text().splitlines()
    paths = sorted(line.split()[0] for line in lines)
    expected = [reference(tail / "imagenet" / path, 16, exact=True) for path in paths]
    assert torch.equal(dataset.train.x, torch.stack(expected))


def test_other_classes_of_the_lists_are_left_out(tail):
    dataset = load(tail, class_list=("n03", "n02"), test_per_class=1)
    assert dataset.class_names == ("n02", "n03")
    assert dataset.train.y.bincount().tolist() == [3, 5]
    assert dataset.test.y.tolist() == [0, 1]


def test_classes_are_known_before_any_file():
    counts = {"pycil": 100, "douillard": 100, "all": 1000, ("n02", "n01"): 2}
    for names, count in counts.items():
        assert imagenet_lt.num_classes(imagenet_lt.Config(class_list=names)) == count
    assert imagenet_lt._chosen(imagenet_lt.Config()) == published("pycil")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/n01 1", "line 10: .* is no path and label"),
        ("train/../n01/x.JPEG 0", "line 10"),
        ("test/n01/x.JPEG 0", "line 10: .* is no path and label"),
        ("train/n01/x.JPEG 2", "line 10: class n01 and label 2 do not match"),
        ("train/n09/x.JPEG 0", "line 10: class n09 and label 0 do not match"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tail, line, message):
    path = tail / "imagenet" / "ImageNet_LT_train.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message) as error:
        load(tail)
    assert str(path) in str(error.value)


def test_absent_classes_images_and_lists_are_named(tail):
    with pytest.raises(DataError, match="no image of class n07"):
        load(tail, class_list=("n01", "n07"))
    with pytest.raises(DataError, match="3 classes, not 1000"):
        load(tail, class_list="all")
    (tail / "imagenet" / "train" / "n01" / "n01_9.JPEG").unlink()
    with pytest.raises(DataError, match=r"n01_9\.JPEG: cannot be read"):
        load(tail)
    (tail / "imagenet" / "ImageNet_LT_test.txt").unlink()
    with pytest.raises(DataError, match=r"lacks ImageNet_LT_test\.txt"):
        load(tail)

"""ImageNet-O: folders of images to reject, the same for training and for testing."""

import pytest
import torch
from pictures import prepared, reference, write_picture

from harness import plugins
from harness.data import shelf
from harness.data.base import DataError
from harness.data.sets import imagenet100, imagenet_o
from harness.errors import UserError

COUNTS = {"n03": 1, "n01": 3, "n02": 2}  # as in the real one, folders are not of one size


@pytest.fixture
def outliers(tmp_path):
    """Six images of other sizes, one gray and one of four inks, and files that are none of them."""
    number = 0
    for wnid, count in COUNTS.items():
        for i in range(count):
            mode = {1: "L", 4: "CMYK"}.get(number, "RGB")
            write_picture(tmp_path / "imagenet-o" / wnid / f"{i}_crop.JPEG", number, mode)
            number += 1
    folder = tmp_path / "imagenet-o"
    (folder / "README.txt").write_text("not a folder")
    (folder / ".cache").mkdir()
    (folder / "n01" / "notes.txt").write_text("not an image")
    (folder / "n01" / "._0_crop.JPEG").write_text("of a Macintosh")
    return tmp_path


def images(root, **settings):
    return shelf.read(
        "imagenet_o", imagenet_o.Config(**{"size": 16, "classes": 3, **settings}), root
    )


@pytest.mark.parametrize("way", ["exact", "center_crop"])
def test_test_images_are_all_images_in_the_order_of_their_paths(outliers, way):
    dataset = images(outliers, resize=way)
    assert dataset.class_names == ("n01", "n02", "n03")
    paths = sorted((outliers / "imagenet-o").glob("n*/[0-9]*.JPEG"))
    expected = torch.stack([reference(path, 16, exact=way == "exact") for path in paths])
    assert len(dataset.train) == 0
    assert torch.equal(dataset.test.x, expected)
    assert dataset.test.y.tolist() == [0, 0, 0, 1, 1, 2]
    assert len(prepared(outliers)) == 1


def test_its_images_are_prepared_as_those_of_imagenet100():
    mine, theirs = imagenet_o.Config(), imagenet100.Config()
    assert (mine.size, mine.resize) == (theirs.size, theirs.resize)
    assert imagenet_o.TRAITS == imagenet100.TRAITS


def test_imagenet_o_is_as_declared(outliers):
    config = imagenet_o.Config()
    assert imagenet_o.num_classes(config) == 200
    assert imagenet_o.image_shape(config) == (3, 224, 224)
    dataset = images(outliers)
    assert (dataset.num_classes, dataset.image_shape) == (3, (3, 16, 16))


def test_an_absent_folder_an_empty_one_and_a_corrupt_image_are_named(outliers):
    path = outliers / "imagenet-o" / "n02" / "1_crop.JPEG"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match="no readable image") as error:
        images(outliers)
    assert str(path) in str(error.value)
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"n02: holds no \*\.JPEG file"):
        images(outliers)
    path.parent.rmdir()
    with pytest.raises(DataError, match="imagenet-o: 2 folders, but the setting `classes` is 3"):
        images(outliers)


def test_a_missing_imagenet_o_says_where_it_was_sought_and_how_to_get_it(tmp_path):
    (tmp_path / "imagenet-o").mkdir()
    with pytest.raises(DataError) as error:
        images(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'imagenet-o'}: lacks folders of images" in message
    assert f"{tmp_path / 'imagenet_o'}: no such folder" in message
    assert "ROOT/imagenet-o/<class>/*.JPEG" in message
    with pytest.raises(UserError, match=r"imagenet_o --download: fetch imagenet-o\.tar"):
        shelf.prepare("imagenet_o", imagenet_o.Config(), tmp_path, download=True)


def test_the_other_name_of_the_folder_will_do(outliers):
    (outliers / "imagenet-o").rename(outliers / "imagenet_o")
    assert len(images(outliers).test) == 6


@pytest.mark.parametrize("settings", [{"classes": 0}, {"size": 0}, {"resize": "none"}])
def test_impossible_settings_of_imagenet_o_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        plugins.component("data set", "imagenet_o", settings, where="tests")

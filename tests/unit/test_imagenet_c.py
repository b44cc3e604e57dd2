"""ImageNet-C is one set of images with a domain for each corruption and severity."""

import pytest
import torch
from pictures import reference, write_picture

from harness.data import shelf
from harness.data.base import DataError
from harness.data.sets import imagenet_c
from harness.errors import UserError

CHOSEN = {"corruptions": ("fog", "gaussian_noise"), "severities": (1, 5), "size": 16}


@pytest.fixture
def corrupted(tmp_path):
    """Two classes under four variants, those of noise in a folder of the family."""
    number = 0
    for place in ("fog/1", "fog/5", "noise/gaussian_noise/1", "noise/gaussian_noise/5"):
        for name in ("n02", "n01"):
            for i in (2, 0, 1):
                write_picture(tmp_path / "imagenet-c" / place / name / f"{i}.JPEG", number)
                number += 1
    return tmp_path


def load(root, **settings):
    config = imagenet_c.Config(**{**CHOSEN, "class_list": ("n02", "n01"), **settings})
    return shelf.read("imagenet_c", config, root)


def test_variants_are_domains_and_classes_and_files_are_sorted(corrupted):
    dataset = load(corrupted)
    assert dataset.class_names == ("n01", "n02")
    assert len(dataset.train) == 0
    assert dataset.test.domain.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert dataset.test.y.tolist() == [0, 0, 0, 1, 1, 1] * 4
    places = ("fog/1", "fog/5", "noise/gaussian_noise/1", "noise/gaussian_noise/5")
    paths = [
        corrupted / "imagenet-c" / place / name / f"{i}.JPEG"
        for place in places
        for name in ("n01", "n02")
        for i in range(3)
    ]
    expected = torch.stack([reference(path, 16, exact=False) for path in paths])
    assert torch.equal(dataset.test.x, expected)


def test_the_first_images_of_each_class_can_be_chosen(corrupted):
    whole, few = load(corrupted), load(corrupted, test_per_class=(1, 2))
    rows = torch.cat([torch.tensor([0, 3, 4]) + 6 * variant for variant in range(4)])
    assert torch.equal(few.test.x, whole.test.x[rows])
    assert few.test.y.tolist() == [0, 1, 1] * 4
    with pytest.raises(DataError, match="3 numbers for 2 classes"):
        load(corrupted, test_per_class=(1, 2, 1))
    with pytest.raises(DataError, match="3 images, but 4 are wanted"):
        load(corrupted, test_per_class=4)


def test_all_corruptions_are_the_default():
    config = imagenet_c.Config()
    assert len(config.variants()) == imagenet_c.num_domains(config) == 75
    assert imagenet_c.num_classes(config) == 100
    assert imagenet_c.official(config).test == 75 * 50


@pytest.mark.parametrize(
    "settings", [{"corruptions": ("fogg",)}, {"severities": (0,)}, {"severities": ()}, {"size": 0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError):
        imagenet_c.Config(**settings)


def test_missing_variants_are_named(corrupted):
    with pytest.raises(DataError, match=r"lacks fog/2, gaussian_noise/2"):
        load(corrupted, severities=(1, 2))

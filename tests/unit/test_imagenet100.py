"""ImageNet-100: the classes that CLIMB draws and those of two lists, from folders of JPEG files."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import prepared, reference, write_picture
from timm.data import ImageNetInfo

from harness import plugins, protocol
from harness.assembly import build_dataset
from harness.data import shelf
from harness.data.base import DataError
from harness.data.inspection import check
from harness.data.sets import imagenet100
from harness.errors import UserError
from harness.spec import TrialSpec

WNIDS = ("n01", "n02", "n05", "n11", "n20")


@pytest.fixture
def imagenet(tmp_path):
    """Five classes of three training and two test images, and files that are none of them."""
    for number, wnid in enumerate(WNIDS):
        for split, count in (("train", 3), ("val", 2)):
            for i in range(count):
                path = tmp_path / "imagenet" / split / wnid / f"{wnid}_{split}_{i}.JPEG"
                mode = {7: "L", 11: "CMYK"}.get(10 * number + i, "RGB")
                write_picture(path, 10 * number + i + 5 * (split == "val"), mode)
    (tmp_path / "imagenet" / "train" / "n01" / "notes.txt").write_text("not an image")
    (tmp_path / "imagenet" / "train" / "n01" / "._n01_train_0.JPEG").write_text("of a Macintosh")
    (tmp_path / "imagenet" / "train" / ".cache").mkdir()
    (tmp_path / "imagenet" / "LOC_synset_mapping.txt").write_text("n01 tench")
    return tmp_path


def images(root, **settings):
    config = imagenet100.Config(**{"classes": 3, "list_seed": 0, "size": 16, **settings})
    return shelf.read("imagenet100", config, root)


@pytest.mark.parametrize(
    ("seed", "begins"),
    [
        (42, (654, 114, 25, 759, 281, 250, 228, 142, 754, 104)),
        (0, (864, 394, 776, 911, 430, 41, 265, 988, 523, 497)),
        (1, (137, 582, 867, 821, 782, 64, 261, 120, 507, 779)),
    ],
)
def test_the_drawn_classes_are_those_of_climb(seed, begins):
    names = [f"{i:04}" for i in range(1000)]
    chosen = imagenet100.drawn(names, 100, seed)
    assert tuple(map(int, chosen[:10])) == begins
    random.seed(seed)  # as github.com/lefebvju/climb, src/get_datasets.py
    assert list(map(int, chosen)) == random.sample(range(1000), 100)


def test_of_a_hundred_classes_all_are_used_in_a_drawn_order():
    names = [f"{i:04}" for i in range(100)]
    chosen = imagenet100.drawn(names, 100, 42)
    assert sorted(chosen) == names
    assert chosen != tuple(names)
    assert chosen != imagenet100.drawn(names, 100, 43)


@pytest.mark.parametrize("way", ["exact", "center_crop"])
def test_images_are_those_of_the_drawn_classes_in_the_order_drawn(imagenet, way):
    dataset = images(imagenet, resize=way)
    names = [WNIDS[i] for i in random.Random(0).sample(range(5), 3)]
    assert list(dataset.class_names) == names
    for split, folder, count in ((dataset.train, "train", 3), (dataset.test, "val", 2)):
        assert split.y.bincount().tolist() == [count] * 3
        for label, name in enumerate(names):
            paths = sorted((imagenet / "imagenet" / folder / name).glob("n*.JPEG"))
            expected = [reference(path, 16, exact=way == "exact") for path in paths]
            assert torch.equal(split.x[split.y == label], torch.stack(expected))
    assert dataset.traits.flip
    assert dataset.traits.crop_padding == 0


def test_a_list_of_classes_is_taken_as_it_is(imagenet):
    chosen = ("n20", "n01")
    dataset = images(imagenet, class_list=chosen)
    assert dataset.class_names == chosen
    assert imagenet100.num_classes(imagenet100.Config(class_list=chosen)) == 2
    in_suite = spec({"class_list": list(chosen), "size": 16}, 0)
    assert build_dataset(in_suite, imagenet).class_names == chosen
    with pytest.raises(UserError, match=r"class_list: .*'sampled'.* got .smapled"):
        spec({"class_list": "smapled"}, 0)
    with pytest.raises(DataError, match=r"train/n99: no such folder"):
        images(imagenet, class_list=("n99",))
    with pytest.raises(DataError, match="class_list names a class twice"):
        imagenet100.Config(class_list=("n01", "n01"))


def write_classes(root, wnids):
    """One small picture in each class of train and of val, the same in all."""
    source = root / "one.jpg"
    write_picture(source, 0)
    for wnid in wnids:
        for split in ("train", "val"):
            folder = root / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            (folder / f"{wnid}.JPEG").hardlink_to(source)


def test_the_published_lists_are_parts_of_all_classes_as_their_papers_describe_them():
    wnids = ImageNetInfo().label_names()  # of all 1,000, sorted
    drawn = np.random.RandomState(1993).permutation(1000)[:100]
    assert list(imagenet100.published("pycil")) == sorted(wnids[i] for i in drawn)
    assert list(imagenet100.published("douillard")) == wnids[:100]


@pytest.mark.parametrize("name", ["pycil", "douillard"])
def test_a_published_list_needs_no_data_to_be_counted_and_is_found_among_others(tmp_path, name):
    in_suite = spec({"class_list": name, "size": 16, "classes": 7}, 0)
    config = imagenet100.Config(class_list=name, size=16, classes=7)
    assert imagenet100.num_classes(config) == 100
    wnids = imagenet100.published(name)
    write_classes(tmp_path, [*wnids, "n00000001", "n99999999"])
    dataset = build_dataset(in_suite, tmp_path)
    assert dataset.class_names == wnids
    assert dataset.train.y.tolist() == dataset.test.y.tolist() == list(range(100))
    for seed in (0, 1):  # has nothing to draw, so that all trials share the images
        assert imagenet100.seeded(config, seed) == config
    gone = tmp_path / "imagenet" / "val" / wnids[40]
    (gone / f"{wnids[40]}.JPEG").unlink()
    gone.rmdir()
    with pytest.raises(DataError, match=f"val/{wnids[40]}: no such folder; each class needs one"):
        shelf.read("imagenet100", config, tmp_path)


@pytest.mark.parametrize("settings", [{}, {"class_list": "pycil"}, {"class_list": ("n01",)}])
def test_validation_images_that_lie_in_no_folders_are_refused_before_any_is_decoded(
    imagenet, settings
):
    val = imagenet / "imagenet" / "val"
    for number, path in enumerate(sorted(val.glob("*/*.JPEG"))):
        path.rename(val / f"ILSVRC2012_val_{number:08}.JPEG")
    for folder in val.glob("n*"):
        folder.rmdir()
    with pytest.raises(DataError, match=r"val: holds no folders of classes; .* to be sorted into"):
        images(imagenet, **settings)
    assert not (imagenet / "prepared").exists()


def test_the_order_of_classes_needs_no_other_file(imagenet):
    first = images(imagenet, classes=5)
    second = images(imagenet, classes=5, list_seed=1)
    assert first.class_names != second.class_names
    assert torch.equal(first.train.x, second.train.x)
    assert not torch.equal(first.train.y, second.train.y)
    assert len(prepared(imagenet)) == 2


def test_fewer_images_are_the_first_of_each_class(imagenet):
    few = images(imagenet, per_class=2, test_per_class=1)
    many = images(imagenet)
    assert (len(few.train), len(few.test)) == (6, 3)
    for label in range(3):
        assert torch.equal(
            few.train.x[few.train.y == label], many.train.x[many.train.y == label][:2]
        )


def spec(settings, seed):
    return TrialSpec(
        method=plugins.component("method", "finetune", {}, where="tests"),
        dataset=plugins.component("data set", "imagenet100", settings, where="tests"),
        num_tasks=1,
        distribution="regular",
        protocol=protocol.resolve({}, where="tests"),
        seed=seed,
    )


def test_a_trials_seed_draws_its_classes_unless_a_list_has_its_own(imagenet):
    settings = {"classes": 3, "size": 16}
    for seed in (0, 4):
        expected = images(imagenet, list_seed=seed).class_names
        assert build_dataset(spec(settings, seed), imagenet).class_names == expected
        fixed = build_dataset(spec({**settings, "list_seed": 4}, seed), imagenet)
        assert fixed.class_names == images(imagenet, list_seed=4).class_names
    assert images(imagenet, list_seed=0).class_names != images(imagenet, list_seed=4).class_names
    assert spec(settings, 0).group == spec(settings, 4).group


def test_trials_of_two_seeds_differ_only_in_the_seed_of_their_list():
    config = imagenet100.Config()
    assert imagenet100.seeded(config, 3) == replace(config, list_seed=3)
    assert imagenet100.seeded(replace(config, list_seed=0), 3).list_seed == 0


def test_a_missing_imagenet_says_where_it_was_sought_and_what_is_expected(tmp_path):
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        images(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'imagenet'}: lacks val" in message
    assert f"{tmp_path / 'imagenet100'}: no such folder" in message
    assert "ROOT/imagenet/val/<class>/*.JPEG" in message


def test_the_other_name_of_the_folder_will_do(imagenet):
    (imagenet / "imagenet").rename(imagenet / "imagenet100")
    assert len(images(imagenet).train) == 9


def test_too_few_classes_and_absent_ones_are_named(imagenet):
    with pytest.raises(DataError, match=r"train: 5 folders of classes, but 100 are to be drawn"):
        images(imagenet, classes=100)
    gone = imagenet / "imagenet" / "val" / "n05"
    for path in gone.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val/n05: holds no \*\.JPEG file"):
        images(imagenet, classes=5)
    gone.rmdir()
    with pytest.raises(DataError, match="val/n05: no such folder; each class needs one"):
        images(imagenet, classes=5)


@pytest.mark.parametrize("settings", [{"classes": 0}, {"size": 0}])
def test_impossible_settings_of_imagenet_are_refused(settings):
    with pytest.raises(DataError, match=next(iter(settings))):
        imagenet100.Config(**settings)


def test_imagenet_can_be_prepared_and_checked(tmp_path):
    write_classes(tmp_path, [f"n{number:08}" for number in range(100)])
    shelf.prepare("imagenet100", imagenet100.Config(), tmp_path)
    assert len(prepared(tmp_path)) == 1
    lines = list(check("imagenet100", imagenet100.Config(), tmp_path))
    assert lines[-1].startswith("imagenet100: 100 train, 100 test images in 100 classes: ok")
    assert any(line.startswith("test: 100 images; published: 5,000") for line in lines)
    with pytest.raises(UserError, match="imagenet100 --download: ILSVRC 2012 of https"):
        shelf.prepare("imagenet100", imagenet100.Config(), tmp_path, download=True)

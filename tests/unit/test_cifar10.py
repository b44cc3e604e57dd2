"""CIFAR-10 in its official layout: five training batches, a test batch and the names."""

import numpy as np
import pytest
import torch
from published import as_bytes, write

from harness.data import shelf
from harness.data.base import DataError
from harness.data.sets import cifar10

NAMES = [f"class {i}" for i in range(10)]
FILES = {f"data_batch_{number}": 20 for number in range(1, 6)} | {"test_batch": 30}


def content(name):
    """Two images a class in each training batch and three in the test batch, all different."""
    count, seed = FILES[name], list(FILES).index(name)
    return {
        "batch_label": name,
        "labels": [(seed + 3 * i) % 10 for i in range(count)],
        "data": np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8),
        "filenames": [f"{i}.png" for i in range(count)],
    }


def write_cifar(root, *, folder="cifar10/cifar-10-batches-py", protocol=4, form=dict):
    for name in FILES:
        write(root / folder / name, form(content(name)), protocol)
    meta = {"label_names": NAMES, "num_cases_per_batch": 20, "num_vis": 3072}
    write(root / folder / "batches.meta", form(meta), protocol)
    return root / folder


def cifar(root, **settings):
    return shelf.read("cifar10", cifar10.Config(**settings), root)


def expected(*names):
    """Images (N, 3, 32, 32) and labels of some files, one after another."""
    parts = [content(name) for name in names]
    rows = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(rows), [label for part in parts for label in part["labels"]]


@pytest.mark.parametrize("folder", ["cifar10/cifar-10-batches-py", "cifar-10-batches-py"])
def test_both_places_are_looked_into(tmp_path, folder):
    write_cifar(tmp_path, folder=folder)
    assert len(cifar(tmp_path).train) == 100


@pytest.mark.parametrize(
    ("protocol", "form"), [("python 2", as_bytes), (4, as_bytes), (2, dict), (4, dict)]
)
def test_batches_follow_each_other_whoever_wrote_them(tmp_path, protocol, form):
    write_cifar(tmp_path, protocol=protocol, form=form)
    dataset = cifar(tmp_path)
    names = tuple(f"data_batch_{number}" for number in (1, 2, 3, 4, 5))
    for split, files in ((dataset.train, names), (dataset.test, ("test_batch",))):
        images, labels = expected(*files)
        assert torch.equal(split.x, images)
        assert split.y.tolist() == labels
    assert dataset.class_names == tuple(NAMES)


def test_a_pixel_is_found_by_channel_then_row_then_column(tmp_path):
    write_cifar(tmp_path)
    flat = content("data_batch_2")["data"][7]
    image = cifar(tmp_path).train.x[27]
    for channel, row, column in ((0, 0, 1), (1, 5, 31), (2, 31, 0)):
        assert image[channel, row, column] == flat[1024 * channel + 32 * row + column]


def test_a_set_is_as_declared(tmp_path):
    write_cifar(tmp_path)
    dataset = cifar(tmp_path)
    assert dataset.name == "cifar10"
    assert dataset.image_shape == cifar10.image_shape(cifar10.Config()) == (3, 32, 32)
    assert dataset.num_classes == cifar10.num_classes(cifar10.Config()) == 10
    assert (dataset.train.x.dtype, dataset.train.y.dtype) == (torch.uint8, torch.int64)
    assert (dataset.traits.flip, dataset.traits.crop_padding) == (True, 4)
    assert dataset.traits.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.traits.std == (0.2470, 0.2435, 0.2615)


def test_fewer_images_are_the_first_of_each_class_over_all_batches(tmp_path):
    write_cifar(tmp_path)
    few, many = cifar(tmp_path, per_class=3, test_per_class=2), cifar(tmp_path)
    for few_split, split, count in ((few.train, many.train, 3), (few.test, many.test, 2)):
        assert few_split.y.bincount().tolist() == [count] * 10
        for label in range(10):
            first = split.x[split.y == label][:count]
            assert torch.equal(few_split.x[few_split.y == label], first)
    with pytest.raises(DataError, match="11 images a class were asked for; there are 1 to 10"):
        cifar(tmp_path, per_class=11)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_a_missing_file_is_named_with_how_to_get_the_set(tmp_path, name):
    (write_cifar(tmp_path) / name).unlink()
    with pytest.raises(DataError) as error:
        cifar(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'cifar10' / 'cifar-10-batches-py'}: lacks {name}\n" in message
    assert f"{tmp_path / 'cifar-10-batches-py'}: no such folder" in message
    assert "data prepare cifar10 --download" in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [0] * 19}, "'labels' are no 20 numbers, one for each image"),
        ({"labels": [i % 11 for i in range(20)]}, "labels from 0 to 10, but classes run from 0"),
        ({"labels": [i % 9 for i in range(20)]}, "no image of class 9"),
        ({"data": np.zeros((20, 3071), np.uint8)}, "'data' is of shape (20, 3071), not (N, 3072)"),
        ({"data": [[0] * 3072] * 20}, "'data' is no array of bytes"),
    ],
)
def test_the_batch_that_does_not_fit_is_named(tmp_path, changed, message):
    path = write_cifar(tmp_path) / "data_batch_3"
    write(path, {**content("data_batch_3"), **changed}, 4)
    with pytest.raises(DataError) as error:
        cifar(tmp_path)
    assert f"{path}: {message}" in str(error.value)


def test_the_pickles_of_cifar100_are_refused_by_their_keys(tmp_path):
    folder = write_cifar(tmp_path)
    hundred = content("test_batch")
    hundred["fine_labels"] = hundred.pop("labels")
    write(folder / "test_batch", hundred, 4)
    with pytest.raises(DataError, match=r"test_batch: lacks 'labels'; it holds .*fine_labels"):
        cifar(tmp_path)


def test_a_wrong_number_of_names_and_a_truncated_batch_are_named(tmp_path):
    folder = write_cifar(tmp_path)
    write(folder / "batches.meta", {"label_names": NAMES[:9]}, 4)
    with pytest.raises(DataError, match=r"meta: 'label_names' is no list of 10 names"):
        cifar(tmp_path)
    batch = folder / "data_batch_5"
    batch.write_bytes(batch.read_bytes()[:-100])
    with pytest.raises(DataError, match="data_batch_5: damaged pickle"):
        cifar(tmp_path)

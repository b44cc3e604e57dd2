"""CIFAR-100 in its official layout, and pickles that are read without running what is in them."""

import os
import pickle

import numpy as np
import pytest
import torch
from published import as_bytes, python2, write

from harness.data import shelf
from harness.data.base import DataError
from harness.data.pickles import read_pickle
from harness.data.sets import cifar100

NAMES = [f"class {i}" for i in range(100)]


def pixels(split, per_class=2):
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (100 * per_class, 3072), np.uint8)


def content(split, per_class=2):
    count = 100 * per_class
    return {
        "filenames": [f"{i}.png" for i in range(count)],
        "batch_label": f"{split} batch",
        "fine_labels": [i % 100 for i in range(count)],
        "coarse_labels": [i % 20 for i in range(count)],
        "data": pixels(split, per_class),
    }


def write_cifar(root, *, folder="cifar100/cifar-100-python", protocol=4, **changed):
    """Two training images a class and one test image; `changed` replaces parts of both splits."""
    for split, per_class in (("train", 2), ("test", 1)):
        files = {**content(split, per_class), **changed}
        write(root / folder / split, files, protocol)
    names = {"fine_label_names": NAMES, "coarse_label_names": NAMES[:20]}
    write(root / folder / "meta", names, protocol)
    return root / folder


def cifar(root, **settings):
    return shelf.read("cifar100", cifar100.Config(**settings), root)


def dumped_python2(root):
    for split, per_class in (("train", 2), ("test", 1)):
        write(root / "cifar-100-python" / split, as_bytes(content(split, per_class)), "python 2")
    names = as_bytes({"fine_label_names": NAMES, "coarse_label_names": NAMES[:20]})
    write(root / "cifar-100-python" / "meta", names, "python 2")


# --- the layout


@pytest.mark.parametrize("folder", ["cifar100/cifar-100-python", "cifar-100-python"])
def test_both_places_are_looked_into(tmp_path, folder):
    write_cifar(tmp_path, folder=folder)
    assert len(cifar(tmp_path).train) == 200


def test_the_published_form_is_read_pixel_by_pixel(tmp_path):
    dumped_python2(tmp_path)
    ours = read_pickle(tmp_path / "cifar-100-python" / "train")
    raw = (tmp_path / "cifar-100-python" / "train").read_bytes()
    standard = pickle.loads(raw, encoding="bytes")  # noqa: S301 - written above
    assert standard[b"data"].tobytes() == pixels("train").tobytes()
    assert ours.keys() == {key.decode() for key in standard}
    dataset = cifar(tmp_path)
    for split, held in (("train", dataset.train), ("test", dataset.test)):
        expected = pixels(split, len(held) // 100)
        for row in (0, 57, 99):  # channel by channel, then row by row
            image = [[[expected[row, 1024 * c + 32 * i + j] for j in range(32)] for i in range(32)]
                     for c in range(3)]  # fmt: skip
            assert held.x[row].tolist() == image
        assert held.y.tolist() == [i % 100 for i in range(len(held))]
    assert dataset.class_names == tuple(NAMES)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", [dict, as_bytes])
def test_every_protocol_is_read_with_text_or_bytes_as_keys(tmp_path, protocol, form):
    path = tmp_path / "file"
    value = {**content("train"), "wide": np.arange(6, dtype=">i4").reshape(2, 3).T}
    write(path, form(value), protocol)
    found = read_pickle(path)
    assert found.keys() == value.keys()
    assert np.array_equal(found["data"], value["data"])
    assert found["wide"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["fine_labels"] == value["fine_labels"]
    assert found["filenames"] == form({"x": value["filenames"]}).popitem()[1]


def test_a_set_is_as_declared(tmp_path):
    write_cifar(tmp_path)
    dataset = cifar(tmp_path)
    assert dataset.image_shape == cifar100.image_shape(cifar100.Config()) == (3, 32, 32)
    assert dataset.num_classes == cifar100.num_classes(cifar100.Config()) == 100
    assert dataset.train.x.dtype == torch.uint8
    assert (dataset.traits.flip, dataset.traits.crop_padding) == (True, 4)


def test_numbers_of_images_can_be_chosen(tmp_path):
    write_cifar(tmp_path)
    dataset = cifar(tmp_path, per_class=1, test_per_class=1)
    assert (len(dataset.train), len(dataset.test)) == (100, 100)
    assert dataset.train.x.flatten(1).numpy().tolist() == pixels("train")[:100].tolist()
    with pytest.raises(DataError, match="3 images a class were asked for; there are 1 to 2"):
        cifar(tmp_path, per_class=3)


@pytest.mark.parametrize(
    "labels", [np.arange(200) % 100, list(np.arange(200) % 100)], ids=["array", "numpy numbers"]
)
def test_labels_may_be_numpys(tmp_path, labels):
    folder = write_cifar(tmp_path)
    write(folder / "train", {**content("train"), "fine_labels": labels}, 4)
    assert cifar(tmp_path).train.y.tolist() == [i % 100 for i in range(200)]


# --- what is wrong with it


def test_a_missing_set_says_where_it_was_sought_and_how_to_get_it(tmp_path):
    (write_cifar(tmp_path) / "meta").unlink()
    with pytest.raises(DataError) as error:
        cifar(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'cifar100' / 'cifar-100-python'}: lacks meta" in message
    assert f"{tmp_path / 'cifar-100-python'}: no such folder" in message
    assert "data prepare cifar100 --download" in message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fine_labels": [0] * 199}, "train: 'fine_labels' are no 200 numbers"),
        ({"fine_labels": ["0"] * 200}, "train: 'fine_labels' are no 200 numbers"),
        ({"fine_labels": [i % 101 for i in range(200)]}, "train: labels from 0 to 100, but"),
        ({"fine_labels": [i % 100 - 1 for i in range(200)]}, "train: labels from -1 to 98, but"),
        ({"fine_labels": [i % 99 for i in range(200)]}, "train: no image of class 99"),
        ({"data": np.zeros((200, 3071), np.uint8)}, r"train: 'data' is of shape \(200, 3071\)"),
        ({"data": np.zeros((200, 3072), np.int64)}, "train: 'data' is no array of bytes"),
        ({"data": [[0] * 3072] * 200}, "train: 'data' is no array of bytes"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changed, message):
    write_cifar(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        cifar(tmp_path)


def test_a_class_without_test_images_is_named(tmp_path):
    folder = write_cifar(tmp_path)
    labels = [3 if i == 7 else i for i in range(100)]
    write(folder / "test", {**content("test", 1), "fine_labels": labels}, 4)
    with pytest.raises(DataError, match="test: no image of class 7"):
        cifar(tmp_path)


def test_a_lacking_key_and_a_wrong_number_of_names_are_named(tmp_path):
    folder = write_cifar(tmp_path)
    write(folder / "meta", {"fine_label_names": NAMES[:99]}, 4)
    with pytest.raises(DataError, match="meta: 'fine_label_names' is no list of 100 names"):
        cifar(tmp_path)
    write(folder / "train", {"data": pixels("train"), "labels": [0]}, 4)
    with pytest.raises(DataError, match="train: lacks 'fine_labels'; it holds data, labels"):
        cifar(tmp_path)


# --- pickles that are not data


class Payload:
    def __init__(self, function, *arguments):
        self.answer = function, arguments

    def __reduce__(self):
        return self.answer


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.name}.system"), (eval, "eval"), (np.load, "load"), (getattr, "getattr")],
)
def test_what_a_pickle_would_run_is_refused_by_name(tmp_path, function, name, protocol):
    path, proof = tmp_path / "train", tmp_path / "proof"
    arguments = {os.system: f"touch {proof}", eval: f"open({str(proof)!r}, 'w')"}
    payload = Payload(function, arguments.get(function, "x"))
    write(path, {"data": [payload]}, protocol)
    with pytest.raises(DataError, match="refused, because it would load") as error:
        read_pickle(path)
    assert name in str(error.value)
    assert str(path) in str(error.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    "value",
    [
        {"data": np.array([{}, None], dtype=object)},
        {"data": np.array(["text"])},
        {"data": np.zeros(3, [("a", "u1")])},
        {"data": {1, 2}},
        {"data": 1.5},
        {"data": np.float32(1.5)},
        {"data": None},
        {3: "a number for a key"},
        [1, 2],
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_values_than_those_of_data_sets_are_refused(tmp_path, value, protocol):
    path = tmp_path / "train"
    write(path, value, protocol)
    with pytest.raises(DataError) as error:
        read_pickle(path)
    assert str(path) in str(error.value)


def test_the_shape_of_an_array_must_be_that_of_its_bytes(tmp_path):
    whole = b"\x80\2" + python2({b"data": np.zeros((2, 3), np.uint8)}) + b"."
    wider = whole.replace(python2(2) + python2(3) + b"t", python2(2) + python2(4) + b"t")
    assert wider != whole
    (tmp_path / "train").write_bytes(wider)
    with pytest.raises(DataError, match="damaged pickle"):
        read_pickle(tmp_path / "train")


def test_an_array_with_its_axes_in_another_order_is_not_misread(tmp_path):
    turned = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(1, 0, 2)
    write(tmp_path / "train", {"data": turned}, 4)
    assert np.array_equal(read_pickle(tmp_path / "train")["data"], turned)
    write(tmp_path / "train", {"data": turned}, 5)
    with pytest.raises(DataError, match="axes are in order 'K'"):
        read_pickle(tmp_path / "train")


def test_a_list_that_holds_itself_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    write(tmp_path / "train", {"data": endless}, 2)
    with pytest.raises(DataError, match="damaged pickle"):
        read_pickle(tmp_path / "train")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_truncated_pickle_is_named_wherever_it_ends(tmp_path, protocol):
    path = tmp_path / "train"
    write(path, {"data": np.zeros((2, 3), np.uint8), b"fine_labels": [1, 2]}, protocol)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="train: damaged pickle"):
            read_pickle(path)
    path.write_text("<html>not found</html>")
    with pytest.raises(DataError, match="train: damaged pickle"):
        read_pickle(path)

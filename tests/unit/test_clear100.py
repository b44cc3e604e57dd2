"""CLEAR-100: buckets are domains, and nothing counts but what the lists name."""

import json

import pytest
import torch
from pictures import reference, write_picture

from harness.data import shelf
from harness.data.base import DataError
from harness.data.sets import clear100

BUCKETS = ("2004", "1", "10", "2")  # time is the order in the file, not that of the names
CLASSES = ("zebra", "aircraft carrier", "bus")


def write_clear(root):
    """Four buckets of three classes; a bucket's folder is not called after the bucket."""
    number = 0
    for split, count in (("train", 3), ("test", 2)):
        folder, index = root / "clear" / split, {}
        for bucket in BUCKETS:
            index[bucket] = {}
            for name in sorted(CLASSES):
                entries = {}
                for i in range(count):
                    number += 1
                    path = f"pictures/of-{bucket}/{name}/{9 - i}.jpg"
                    write_picture(folder / path, number, "L" if number == 3 else "RGB")
                    entries[str(number)] = {"IMG_PATH": path, "DATE_UPLOADED": "then"}
                write_picture(folder / f"pictures/of-{bucket}/{name}/extra.jpg", 99)
                index[bucket][name] = f"lists/{bucket}/{name}.json"
                path = folder / index[bucket][name]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(entries))
        (folder / "class_names.txt").write_text("\n".join(CLASSES) + "\n")
        if split == "test":
            index = dict(sorted(index.items()))
        (folder / "labeled_metadata.json").write_text(json.dumps(index))


@pytest.fixture
def clear(tmp_path):
    write_clear(tmp_path)
    return tmp_path


def photographs(root, **settings):
    return shelf.read(
        "clear100", clear100.Config(**{"classes": 3, "buckets": 4, "size": 16, **settings}), root
    )


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_buckets_are_domains_in_the_order_of_the_file_and_lines_are_labels(clear):
    dataset = photographs(clear)
    assert dataset.class_names == CLASSES
    for split, name, count in ((dataset.train, "train", 3), (dataset.test, "test", 2)):
        assert len(split) == 4 * 3 * count
        for domain, bucket in enumerate(BUCKETS):
            for label, kind in enumerate(CLASSES):
                folder = clear / "clear" / name / "pictures" / f"of-{bucket}" / kind
                paths = sorted(folder.glob("[0-9].jpg"))
                mine = (split.domain == domain) & (split.y == label)
                expected = torch.stack([reference(path, 16, exact=False) for path in paths])
                assert torch.equal(split.x[mine], expected)


def test_clear_is_as_declared(clear):
    config = clear100.Config()
    assert (clear100.num_classes(config), clear100.num_domains(config)) == (100, 11)
    assert clear100.image_shape(config) == (3, 224, 224)
    dataset = photographs(clear)
    assert dataset.image_shape == (3, 16, 16)
    assert (dataset.traits.flip, dataset.traits.crop_padding) == (True, 0)


def test_fewer_images_are_the_first_of_each_class_in_each_bucket(clear):
    dataset = photographs(clear, per_class=1, test_per_class=2)
    pairs = list(zip(dataset.train.domain.tolist(), dataset.train.y.tolist(), strict=True))
    assert sorted(pairs) == [(d, c) for d in range(4) for c in range(3)]
    first = clear / "clear" / "train" / "pictures" / "of-10" / "zebra" / "7.jpg"
    row = pairs.index((2, 0))
    assert torch.equal(dataset.train.x[row], reference(first, 16, exact=False))
    with pytest.raises(DataError, match="train: 4 images a class were asked for; there are 1 to 3"):
        photographs(clear, per_class=4)


def test_a_missing_clear_says_where_it_was_sought_and_what_is_expected(clear):
    (clear / "clear" / "test" / "class_names.txt").unlink()
    with pytest.raises(DataError) as error:
        photographs(clear)
    message = str(error.value)
    assert f"{clear / 'clear'}: lacks test/class_names.txt" in message
    assert "ROOT/clear/train and ROOT/clear/test" in message


def test_another_number_of_buckets_or_classes_names_both(clear):
    with pytest.raises(DataError, match="4 buckets, but the setting `buckets` is 11"):
        photographs(clear, buckets=11)
    with pytest.raises(DataError, match="3 classes, but the setting `classes` is 100"):
        photographs(clear, classes=100)


@pytest.mark.parametrize("name", ["class_names.txt", "labeled_metadata.json"])
def test_test_images_of_other_classes_or_buckets_are_refused(clear, name):
    path = clear / "clear" / "test" / name
    path.write_text(path.read_text().replace("bus", "car").replace('"10": {', '"11": {'))
    with pytest.raises(DataError, match=f"test/{name}: not the classes or buckets of train"):
        photographs(clear)


def lacking_bus(index):
    del index["10"]["bus"]


def leaving(entries):
    entries["1"]["IMG_PATH"] = "../../secret.jpg"


def leaving_from_the_root(entries):
    entries["1"]["IMG_PATH"] = "/etc/secret.jpg"


def no_path(entries):
    del entries["1"]["IMG_PATH"]


def gone(entries):
    entries["1"]["IMG_PATH"] = "pictures/gone.jpg"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("labeled_metadata.json", lacking_bus, "json: bucket '10' has no class 'bus'"),
        ("lists/2004/aircraft carrier.json", dict.clear, "no image of class 'aircraft carrier'"),
        ("lists/2004/aircraft carrier.json", leaving, "secret.jpg' leads out of the data set"),
        ("lists/2004/aircraft carrier.json", leaving_from_the_root, "leads out of the data set"),
        ("lists/2004/aircraft carrier.json", no_path, "image '1' has no IMG_PATH"),
        ("lists/2004/aircraft carrier.json", gone, r"gone\.jpg: cannot be read \(No such file"),
    ],
)
def test_a_fault_in_the_lists_is_named(clear, file, change, message):
    rewrite(clear / "clear" / "train" / file, change)
    with pytest.raises(DataError, match=message) as error:
        photographs(clear)
    assert str(clear / "clear" / "train") in str(error.value)


@pytest.mark.parametrize(("content", "message"), [("{", "no JSON"), ("[]", "no dictionary")])
def test_a_list_that_is_none_is_named(clear, content, message):
    path = clear / "clear" / "train" / "lists" / "2" / "bus.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        photographs(clear)
    assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(DataError, match=r"bus\.json: cannot be read"):
        photographs(clear)


def test_a_corrupt_photograph_is_named(clear):
    path = clear / "clear" / "test" / "pictures" / "of-1" / "zebra" / "8.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="no readable image") as error:
        photographs(clear)
    assert str(path) in str(error.value)

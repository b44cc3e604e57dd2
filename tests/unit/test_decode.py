"""Pictures are decoded once, as a library would, whoever asks and how often."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import prepared, reference, write_picture

from harness.data import decode
from harness.data.base import DataError
from harness.data.decode import Picture, Shape, decoded_split, first_pictures


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of all sides; the third is gray and the fourth of four inks."""
    for number in range(10):
        mode = {2: "L", 3: "CMYK"}.get(number, "RGB")
        write_picture(tmp_path / "raw" / f"{number}.jpg", number, mode)
    return tmp_path / "raw"


def pictures(folder):
    return [Picture(path.name, int(path.stem) % 3) for path in sorted(folder.iterdir())]


def decoded(folder, shape=None, **changes):
    settings = {"name": "toy", "root": folder.parent, **changes}
    return decoded_split(folder, pictures(folder), shape or Shape(24, "exact"), **settings)


@pytest.mark.parametrize("block", [1, 3, 256])
@pytest.mark.parametrize("way", ["exact", "center_crop"])
@pytest.mark.parametrize("size", [24, 7])
def test_every_picture_becomes_what_torchvision_makes_of_it(folder, monkeypatch, size, way, block):
    monkeypatch.setattr(decode, "BLOCK", block)
    split = decoded(folder, Shape(size, way))
    assert (split.x.dtype, split.x.shape) == (torch.uint8, (10, 3, size, size))
    for image, path in zip(split.x, sorted(folder.iterdir()), strict=True):
        assert torch.equal(image, reference(path, size, exact=way == "exact")), path
    assert split.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert split.domain is None


def test_pictures_are_decoded_once(folder, monkeypatch):
    first = decoded(folder)
    monkeypatch.setattr(decode, "_pixels", None)
    assert torch.equal(decoded(folder).x, first.x)
    assert len(prepared(folder.parent)) == 1


def test_other_pictures_and_other_shapes_are_other_files(folder):
    decoded(folder)
    decoded(folder, Shape(25, "exact"))
    decoded(folder, Shape(24, "center_crop"))
    assert len(prepared(folder.parent)) == 3
    write_picture(folder / "7.jpg", 12)
    decoded(folder)
    assert len(prepared(folder.parent)) == 4
    (folder / "8.jpg").rename(folder / "18.jpg")
    decoded(folder)
    assert len(prepared(folder.parent)) == 5


def test_what_is_written_to_the_images_does_not_reach_the_file(folder):
    split = decoded(folder)
    before = split.x.clone()
    split.x.fill_(7)
    assert torch.equal(decoded(folder).x, before)


def test_a_picture_that_cannot_be_decoded_is_named_and_leaves_nothing_behind(folder):
    whole = (folder / "5.jpg").read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2], whole[:30]):
        (folder / "5.jpg").write_bytes(content)
        with pytest.raises(DataError, match="no readable image") as error:
            decoded(folder)
        assert str(error.value).startswith(f"{folder / '5.jpg'}: ")
        assert prepared(folder.parent) == []
    (folder / "5.jpg").write_bytes(whole)
    assert len(decoded(folder)) == 10


def test_a_missing_picture_is_named(folder):
    wanted = [*pictures(folder), Picture("11.jpg", 0)]
    with pytest.raises(DataError, match=r"raw/11\.jpg: cannot be read \(No such file"):
        decoded_split(folder, wanted, Shape(8, "exact"), name="toy", root=folder.parent)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "another shape"])
def test_a_damaged_file_of_pixels_is_made_again(folder, damage):
    before = decoded(folder).x.clone()
    path = folder.parent / "prepared" / prepared(folder.parent)[0]
    content = path.read_bytes()
    broken = {"empty": b"", "truncated": content[:-500], "text": b"hello"}
    if damage in broken:
        path.write_bytes(broken[damage])
    else:
        np.save(path, np.zeros((10, 3, 24, 23), np.uint8))
    assert torch.equal(decoded(folder).x, before)
    assert path.read_bytes() == content


def test_an_interruption_leaves_no_file(folder, monkeypatch):
    def interrupted(path, shape):
        if path.stem == "6":
            raise KeyboardInterrupt
        return np.zeros((3, shape.size, shape.size), np.uint8)

    monkeypatch.setattr(decode, "_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoded(folder)
    assert prepared(folder.parent) == []


def test_a_place_that_cannot_be_written_is_named(folder):
    (folder.parent / "prepared").write_text("a file stands in the way")
    with pytest.raises(DataError, match=r"prepared/toy-train-.*\.npy: cannot be written"):
        decoded(folder, name="toy-train")


def test_of_several_at_once_one_decodes_and_the_others_wait(folder, monkeypatch):
    made = []

    def slowly(path, shape, pixels=decode._pixels):
        made.append(path.name)
        time.sleep(0.02)
        return pixels(path, shape)

    monkeypatch.setattr(decode, "_pixels", slowly)
    # The lock is held by an open file, so that threads exclude each other as processes do.
    with ThreadPoolExecutor(3) as pool:
        splits = list(pool.map(lambda _: decoded(folder), range(3)))
    assert sorted(made) == [f"{number}.jpg" for number in range(10)]
    assert all(torch.equal(split.x, splits[0].x) for split in splits)
    assert len(prepared(folder.parent)) == 1


def test_the_first_of_each_class_and_domain_are_those_in_the_order_of_paths():
    here = Path("somewhere")
    found = [Picture(p, y, d) for p, y, d in (("d", 0, 0), ("a", 1, 0), ("c", 0, 1), ("b", 0, 0))]
    found += [Picture(p, y, d) for p, y, d in (("f", 1, 0), ("e", 0, 1))]
    assert [p.path for p in first_pictures(found, None, where=here)] == list("abcdef")
    assert [p.path for p in first_pictures(found, 1, where=here)] == list("abc")
    for count in (0, 3):
        with pytest.raises(DataError, match=f"somewhere: {count} images a class .* 1 to 2"):
            first_pictures(found, count, where=here)

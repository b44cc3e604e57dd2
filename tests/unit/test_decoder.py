"""A picture becomes what torchvision makes of it, and a block knows what it was made from."""

import subprocess
import sys
import zlib
from dataclasses import replace
from multiprocessing import Pipe

import numpy as np
import pytest
from pictures import reference, write_picture
from PIL import Image

from harness.data import decoder
from harness.data.decoder import Block, Shape, UnreadableError, decode_block, pixels
from harness.data.image_file import allocate

MODES = {2: "L", 3: "CMYK"}


@pytest.fixture
def folder(tmp_path):
    """Ten pictures of all sides; the third is gray and the fourth of four inks."""
    for number in range(10):
        write_picture(tmp_path / "raw" / f"{number}.jpg", number, MODES.get(number, "RGB"))
    return tmp_path / "raw"


def block(folder, number=0, **changes):
    files = [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())]
    return replace(Block(number, str(folder), files, Shape(8, "exact")), **changes)


@pytest.mark.parametrize("way", ["exact", "center_crop"])
@pytest.mark.parametrize("size", [1, 7, 24, 40])
def test_every_picture_becomes_what_torchvision_makes_of_it(folder, size, way):
    for path in sorted(folder.iterdir()):
        made = pixels(path, Shape(size, way))
        assert np.array_equal(made, reference(path, size, exact=way == "exact")), path


@pytest.mark.parametrize("way", ["exact", "center_crop"])
@pytest.mark.parametrize("sides", [(1, 1), (1, 300), (301, 2), (500, 375), (375, 500), (225, 224)])
def test_so_do_pictures_of_extreme_sides(tmp_path, sides, way):
    path = tmp_path / "picture.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    made = pixels(path, Shape(224, way))
    assert np.array_equal(made, reference(path, 224, exact=way == "exact"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16"])
def test_a_picture_of_another_format_is_told_by_its_content(tmp_path, mode):
    path = tmp_path / "really_a_png.JPEG"
    Image.new("L", (30, 20), 200).convert(mode).save(path, format="PNG")
    made = pixels(path, Shape(16, "exact"))
    assert np.array_equal(made, reference(path, 16, exact=True))


def test_pictures_that_are_not_to_be_resized_are_kept_as_they_are(folder):
    with Image.open(folder / "8.jpg") as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(pixels(folder / "8.jpg", Shape(24, "none")), expected)
    with pytest.raises(UnreadableError, match="an image of 40x31 pixels, not 24x24"):
        pixels(folder / "0.jpg", Shape(24, "none"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: whole[:0], "no image"),
        (lambda whole: b"<html>404 Not Found" + whole, "no image"),
        (lambda whole: whole[:30], "no readable image|no image"),
        (lambda whole: whole[: len(whole) // 2], "no readable image .*[Tt]runcated"),
        (lambda whole: whole[:200] + b"x" * len(whole), "no readable image"),
    ],
    ids=["empty", "page", "head", "half", "rubbish"],
)
def test_what_is_no_picture_is_refused_with_a_reason(folder, content, reason):
    path = folder / "5.jpg"
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(UnreadableError, match=reason):
        pixels(path, Shape(8, "exact"))


def test_a_picture_that_is_not_there_or_too_large_to_be_one_is_refused(folder, monkeypatch):
    with pytest.raises(UnreadableError, match="No such file"):
        pixels(folder / "10.jpg", Shape(8, "exact"))
    with pytest.raises(UnreadableError, match="Is a directory"):
        pixels(folder, Shape(8, "exact"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableError, match="decompression bomb"):
        pixels(folder / "0.jpg", Shape(8, "exact"))


def test_a_block_is_written_to_its_own_rows_and_faulty_pictures_are_black(folder, tmp_path):
    (folder / "3.jpg").write_bytes(b"<html>")
    target = tmp_path / "images.npy"
    allocate(target, (200, 3, 8, 8))
    made = decode_block(block(folder, number=2), str(target))
    images = np.load(target)
    assert not images[:128].any()
    assert not images[138:].any()
    for place, path in enumerate(sorted(folder.iterdir())):
        expected = np.zeros((3, 8, 8)) if place == 3 else pixels(path, Shape(8, "exact"))
        assert np.array_equal(images[128 + place], expected)
    assert (made.number, made.faults) == (2, {3: "no image"})
    assert made.crc32 == zlib.crc32(images[128:138])


def test_a_block_knows_paths_sizes_shape_and_version(folder, monkeypatch):
    one = block(folder)
    assert replace(one, number=7, folder="elsewhere").made_from == one.made_from
    (path, size), *rest = one.files
    others = [
        replace(one, shape=Shape(8, "center_crop")),
        replace(one, shape=Shape(9, "exact")),
        replace(one, files=[(path, size + 1), *rest]),
        replace(one, files=[("other.jpg", size), *rest]),
        replace(one, files=rest),
    ]
    assert len({one.made_from, *(other.made_from for other in others)}) == 6
    before = one.made_from
    monkeypatch.setattr(decoder, "VERSION", decoder.VERSION + 1)
    assert one.made_from != before


def test_a_worker_does_not_load_torch():
    program = "import sys, harness.data.decoder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_worker_answers_with_blocks_and_errors_until_it_is_left(folder, tmp_path):
    ours, theirs = Pipe()
    program = f"from harness.data.decoder import serve; serve({theirs.fileno()})"
    worker = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
    theirs.close()
    target = tmp_path / "images.npy"
    ours.send((block(folder), str(target)))
    assert isinstance(ours.recv(), FileNotFoundError)
    allocate(target, (10, 3, 8, 8))
    ours.send((block(folder), str(target)))
    assert ours.recv() == decode_block(block(folder), str(target))
    ours.close()
    assert worker.wait(10) == 0

"""The embedded data sets: what they hold, and what happens to damaged or missing files."""

import gzip
import hashlib
import logging
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import glyphs as glyphs_module
from harness.data import shelf
from harness.data.base import DataError, Split, channel_statistics, first_of_each_class
from harness.data.cache import cached_arrays
from harness.data.glyphs import CHARS, TEST_DIGEST, Style, glyphs
from harness.data.sets import digits, fashion_mnist, glyphs100, glyphs100_easy

REPOSITORY = Path(__file__).parents[2]
SMALL = glyphs100.Config(classes=10, per_class=5)


# --- what every set promises


def write_fashion(folder, *, compress=True, count=40, **replaced):
    """A tiny Fashion-MNIST: `count` training and 20 test images; `replaced` sets file contents."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, size in (("train", count), ("t10k", 20)):
        pixels = rng.integers(0, 256, size * 784, np.uint8).tobytes()
        labels = bytes(i % 10 for i in range(size))
        files = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">IIII", 2051, size, 28, 28) + pixels,
            f"{prefix}-labels-idx1-ubyte": struct.pack(">II", 2049, size) + labels,
        }
        for name, content in files.items():
            content = replaced.get(name.split("-idx")[0].replace("-", "_"), content)
            path = folder / (f"{name}.gz" if compress else name)
            path.write_bytes(gzip.compress(content) if compress else content)


def loaded(module, root):
    if module is fashion_mnist:
        write_fashion(root / "fashion_mnist")
        return module.Config(), fashion(root)
    config = module.Config() if module is digits else SMALL
    return config, module.load(config, root)


@pytest.mark.parametrize("module", [digits, fashion_mnist, glyphs100, glyphs100_easy])
def test_a_set_is_uint8_images_with_labels_of_every_class(module, tmp_path):
    config, dataset = loaded(module, tmp_path)
    assert dataset.name == module.__name__.rpartition(".")[2]
    assert dataset.num_classes == module.num_classes(config)
    assert dataset.image_shape == module.image_shape(config)
    channels = dataset.image_shape[0]
    assert len(dataset.traits.mean) == len(dataset.traits.std) == channels
    for split in (dataset.train, dataset.test):
        assert split.x.dtype == torch.uint8
        assert split.x.shape == (len(split), *dataset.image_shape)
        assert split.y.dtype == torch.int64
        assert split.y.unique().tolist() == list(range(dataset.num_classes))
    assert not dataset.traits.flip
    assert module.SOURCE


def test_statistics_are_those_of_the_pixels():
    x = torch.randint(0, 256, (50, 3, 9, 7), generator=torch.Generator().manual_seed(0)).byte()
    mean, std = channel_statistics(x)
    pixels = x.double() / 255
    torch.testing.assert_close(
        torch.tensor(mean).double(), pixels.mean((0, 2, 3)), check_dtype=False
    )
    expected = pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(std).double(), expected, check_dtype=False)


def test_the_first_of_each_class_keep_their_order():
    y = torch.tensor([1, 0, 1, 2, 1, 0, 2, 0])
    part = first_of_each_class(Split(torch.arange(8).byte().view(8, 1, 1, 1), y), 2)
    assert part.x.flatten().tolist() == [0, 1, 2, 3, 5, 6]
    assert part.y.tolist() == [1, 0, 1, 2, 0, 2]
    with pytest.raises(DataError, match="3 images a class were asked for; there are 1 to 2"):
        first_of_each_class(part, 3)


def test_domains_stay_with_their_images():
    y = torch.tensor([1, 0, 1, 0, 1])
    split = Split(torch.zeros(5, 1, 1, 1, dtype=torch.uint8), y, torch.tensor([4, 3, 2, 1, 0]))
    assert first_of_each_class(split, 2).domain.tolist() == [4, 3, 2, 1]


# --- digits


def test_digits_holds_out_every_fourth_image_of_each_class(tmp_path):
    from sklearn.datasets import load_digits

    dataset = digits.load(digits.Config(), tmp_path)
    images, labels = load_digits(return_X_y=True)
    eights = torch.from_numpy(images[labels == 8]).reshape(-1, 1, 8, 8)
    found = dataset.test.x[dataset.test.y == 8].double() * 16 / 255
    torch.testing.assert_close(found, eights[::4], atol=0.05, rtol=0)
    assert (len(dataset.train), len(dataset.test)) == (1343, 454)
    assert dataset.train.x.max() == 255
    assert dataset.traits.crop_padding == 0


# --- Fashion-MNIST


def fashion(root, **settings):
    return shelf.read("fashion_mnist", fashion_mnist.Config(**settings), root)


@pytest.mark.parametrize("layout", ["fashion_mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_reads_both_layouts_gzipped_or_not(tmp_path, layout, compress):
    write_fashion(tmp_path / layout, compress=compress)
    dataset = fashion(tmp_path, per_class=2, test_per_class=1)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    assert dataset.train.x[:, 0].numpy().tolist() == pixels[:20].tolist()
    assert dataset.train.y.tolist() == 2 * list(range(10))
    assert dataset.test.y.tolist() == list(range(10))


def test_debians_fashion_mnist_is_the_published_one(tmp_path):
    if not fashion_mnist.DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    dataset = fashion(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.train.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    mean, std = channel_statistics(dataset.train.x)
    assert mean == pytest.approx(dataset.traits.mean, abs=1e-4)
    assert std == pytest.approx(dataset.traits.std, abs=1e-4)


def test_a_missing_fashion_mnist_says_where_it_was_sought_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    write_fashion(tmp_path / "fashion_mnist")
    (tmp_path / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as error:
        fashion(tmp_path)
    message = str(error.value)
    assert f"{tmp_path / 'fashion_mnist'}: lacks t10k-labels-idx1-ubyte" in message
    assert f"{tmp_path / 'FashionMNIST' / 'raw'}: no such folder" in message
    assert f"{tmp_path / 'debian'}: no such folder" in message
    assert "--download" in message


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train_images", struct.pack(">IIII", 2051, 40, 28, 28) + bytes(100), "truncated"),
        ("train_images", struct.pack(">IIII", 2051, 1, 28, 28) + bytes(785), "overlong"),
        ("train_images", struct.pack(">II", 2051, 40), "truncated"),
        ("train_images", b"", "not an IDX file"),
        ("train_images", struct.pack(">II", 2049, 4) + bytes(4), "not an IDX file"),
        ("train_images", struct.pack(">IIII", 2051, 1, 27, 28) + bytes(756), "not 28 x 28"),
        ("train_labels", struct.pack(">II", 2049, 39) + bytes(39), "39 labels for 40 images"),
        ("train_labels", struct.pack(">II", 2049, 40) + bytes([12] * 40), "label 12"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, compress, name, content, message):
    write_fashion(tmp_path / "fashion_mnist", compress=compress, **{name: content})
    with pytest.raises(DataError, match=message) as error:
        fashion(tmp_path)
    assert name.replace("_", "-") in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip"])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    write_fashion(tmp_path / "fashion_mnist")
    path = tmp_path / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    path.write_bytes({"truncated": content[:middle], "flipped": content}.get(damage, b"hello"))
    with pytest.raises(DataError, match="damaged gzip file") as error:
        fashion(tmp_path)
    assert str(path) in str(error.value)


# --- glyphs


def test_the_default_test_images_are_the_published_ones():
    images = glyphs(Style(), split="test", classes=range(100), per_class=100)
    digest = hashlib.sha256(images.transpose(0, 2, 3, 1).tobytes()).hexdigest()[:16]
    if digest != TEST_DIGEST:
        pytest.skip(f"another version of Pillow, matplotlib or numpy draws {digest}")
    assert images.shape == (10_000, 3, 32, 32)


def test_other_pixels_than_published_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        glyphs_module._check_pixels(np.zeros((2, 3, 32, 32), np.uint8))
    assert TEST_DIGEST in caplog.text


@pytest.mark.parametrize("style", [Style(), glyphs100_easy.STYLE])
def test_fewer_images_and_classes_are_a_prefix(style):
    many = glyphs(style, split="train", classes=range(4), per_class=6)
    few = glyphs(style, split="train", classes=range(3), per_class=2)
    assert np.array_equal(many.reshape(4, 6, -1)[:3, :2], few.reshape(3, 2, -1))


def test_seed_split_and_style_change_the_pixels():
    ways = [
        glyphs(style, split=split, classes=range(2), per_class=2, seed=seed).tobytes()
        for style in (Style(), glyphs100_easy.STYLE)
        for split in ("train", "test")
        for seed in (0, 1)
    ]
    assert len(set(ways)) == len(ways)


def test_glyphs_have_a_fifth_of_test_images_and_their_characters_as_names(tmp_path):
    dataset = glyphs100.load(glyphs100.Config(classes=3, per_class=10), tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (30, 6)
    assert dataset.class_names == tuple(CHARS[:3])
    assert dataset.train.y.tolist() == [c for c in range(3) for _ in range(10)]
    assert (dataset.traits.crop_padding, dataset.traits.crop_mode) == (4, "reflect")
    more = glyphs100.load(glyphs100.Config(classes=3, per_class=10, test_per_class=7), tmp_path)
    assert len(more.test) == 21


@pytest.mark.parametrize(
    "settings", [{"classes": 0}, {"classes": 101}, {"per_class": 0}, {"seed": -1}]
)
def test_impossible_settings_of_glyphs_are_refused(settings):
    with pytest.raises(DataError, match=next(iter(settings))):
        glyphs100.Config(**settings)


# --- the cache


def cache_files(root):
    return sorted((root / "glyphs100").glob("*.npz"))


def test_both_styles_and_all_settings_have_files_of_their_own(tmp_path):
    for config in (SMALL, glyphs100.Config(10, 5, 2), glyphs100.Config(10, 5, seed=1)):
        glyphs100.load(config, tmp_path)
    glyphs100_easy.load(SMALL, tmp_path)
    assert len(cache_files(tmp_path)) == 4
    assert not list(tmp_path.rglob("*.part"))


def test_a_cached_set_is_not_made_again(tmp_path, monkeypatch):
    first = glyphs100.load(SMALL, tmp_path)
    monkeypatch.setattr(glyphs_module, "glyphs", None)
    second = glyphs100.load(SMALL, tmp_path)
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.test.x, second.test.x)


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    first = glyphs100.load(SMALL, tmp_path)
    (path,) = cache_files(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    broken = {"empty": b"", "truncated": whole[:-500], "flipped": flipped, "text": b"PK\3\4 hello"}
    path.write_bytes(broken[damage])
    again = glyphs100.load(SMALL, tmp_path)
    assert torch.equal(first.train.x, again.train.x)
    with np.load(path) as archive:
        assert np.array_equal(archive["train"], first.train.x.numpy())


def test_a_root_that_cannot_be_written_keeps_the_set_in_memory(tmp_path):
    root = tmp_path / "file"
    root.write_text("not a folder")
    dataset = glyphs100.load(SMALL, root)
    assert torch.equal(dataset.train.x, glyphs100.load(SMALL, tmp_path).train.x)


def test_a_failure_while_making_leaves_nothing_behind(tmp_path):
    def make():
        raise ZeroDivisionError

    for _ in range(2):  # the lock is free again, too
        with pytest.raises(ZeroDivisionError):
            cached_arrays(tmp_path / "a.npz", make)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz.lock"]


MAKE = """
import pathlib, sys, time
import numpy as np
from harness.data.cache import cached_arrays

def make():
    with (folder / "made").open("a") as log:
        log.write("x")
    time.sleep(0.5)
    return {"train": np.arange(256, dtype=np.uint8)}

folder = pathlib.Path(sys.argv[1])
assert len(cached_arrays(folder / "set.npz", make)["train"]) == 256
"""


def test_concurrent_processes_make_a_set_once(tmp_path):
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"

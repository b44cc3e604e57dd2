"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 images of ten kinds of clothing (Zalando, MIT licence).

Xiao et al., 2017, arXiv:1708.07747, https://github.com/zalandoresearch/fashion-mnist: four files in
the IDX format of MNIST, gzipped or not. No flip: the set has its shoes and bags one way round. The
random crop is that of zhunzhong07/Random-Erasing; black is the background, so it fills the border.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.base import DataError, Split, Traits, first_of_each_class
from harness.data.official import Official
from harness.data.source import Contents, SplitSource, Stored

SOURCE = (
    "Debian's package dataset-fashion-mnist, or `data prepare fashion_mnist --download`, "
    "or the four IDX files in ROOT/fashion_mnist"
)

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Of the 60,000 training images, whatever `per_class` keeps of them.
TRAITS = Traits(mean=(0.2860,), std=(0.3530,), crop_padding=4)

MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""As in torchvision/datasets/mnist.py."""

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_SPLITS = {"train": "train", "test": "t10k"}  # our name: the prefix of its files
_UNSIGNED_BYTE = 8  # IDX code of the only element type that the MNIST family uses


@dataclass(frozen=True, slots=True)
class Config:
    per_class: int | None = None  # the first training images of each class; None: all 6,000
    test_per_class: int | None = None  # likewise of the 1,000 test images


def num_classes(config: Config) -> int:
    del config
    return len(CLASS_NAMES)


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 1, 28, 28


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    return Official(
        licence="MIT",
        size="30 MB; prepared 55 MB",
        train=config.per_class or 6000,
        test=config.test_per_class or 1000,
        md5=MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "fashion_mnist", root / "FashionMNIST" / "raw", DEBIAN


def missing(folder: Path, config: Config) -> list[str]:
    del config
    names = (_file_name(split, kind) for split in _SPLITS for kind in ("images", "labels"))
    return [name for name in names if not _variants(folder, name)]


def scan(folder: Path, config: Config) -> Contents:
    train, test = (
        _split(folder, split, count)
        for split, count in (("train", config.per_class), ("test", config.test_per_class))
    )
    return Contents(train, test, CLASS_NAMES)


def download(root: Path) -> None:
    """Fetch the files into torchvision's layout below `root`."""
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(root), download=True)


def _variants(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _file_name(split: str, kind: str) -> str:
    return f"{_SPLITS[split]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"


def _split(folder: Path, split: str, count: int | None) -> SplitSource:
    images_path, labels_path = (
        _variants(folder, _file_name(split, kind))[0] for kind in ("images", "labels")
    )
    images, labels = read_idx(images_path, rank=3), read_idx(labels_path, rank=1)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: images of {tuple(images.shape[1:])}, not 28 x 28 pixels")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    if len(labels) and int(labels.max()) >= len(CLASS_NAMES):
        raise DataError(f"{labels_path}: label {int(labels.max())}, but classes run from 0 to 9")
    chosen = first_of_each_class(Split(images.unsqueeze(1), labels.long()), count)
    return SplitSource(Stored.of((images_path, labels_path), chosen.x), chosen.y)


def read_idx(path: Path, *, rank: int) -> Tensor:
    """A uint8 tensor with `rank` dimensions from an IDX file, gzipped if its name ends in .gz.

    The format: two zero bytes, the element type, the number of dimensions, then each dimension as
    a big-endian 32-bit integer, then the elements (http://yann.lecun.com/exdb/mnist/).
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    header = 4 + 4 * rank
    if content[:4] != bytes((0, 0, _UNSIGNED_BYTE, rank)):
        raise DataError(f"{path}: not an IDX file of bytes with {rank} dimension(s)")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
    if len(shape) < rank or len(content) != header + math.prod(shape):
        raise DataError(f"{path}: truncated or overlong ({len(content)} bytes, shape {shape})")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)

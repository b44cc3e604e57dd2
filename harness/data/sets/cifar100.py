"""CIFAR-100: 50,000 + 10,000 colour photographs of 32x32 pixels, 100 classes of everyday things.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the official "python
version" (https://www.cs.toronto.edu/~kriz/cifar.html): the pickles `train`, `test` and `meta` in a
folder `cifar-100-python`. Mean and standard deviation are those of CLIMB's released code
(github.com/lefebvju/climb, src/transforms.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.data.base import (
    DataError,
    Dataset,
    Split,
    Traits,
    check_labels,
    first_of_each_class,
    first_whole,
)
from harness.data.pickles import read_pickle

SOURCE = (
    "`data prepare cifar100 --download`, or unpack cifar-100-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html in ROOT/cifar100"
)

CLASSES = 100
SIDE = 32  # of an image, in pixels
TRAITS = Traits(
    mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), flip=True, crop_padding=4
)


@dataclass(frozen=True, slots=True)
class Config:
    per_class: int | None = None  # the first training images of each class; None: all 500
    test_per_class: int | None = None  # likewise of the 100 test images


def num_classes(config: Config) -> int:
    del config
    return CLASSES


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 3, SIDE, SIDE


def load(config: Config, root: Path) -> Dataset:
    places = (root / "cifar100" / "cifar-100-python", root / "cifar-100-python")
    folder = first_whole("cifar100", places, missing=_missing, source=SOURCE)
    train = first_of_each_class(_split(folder / "train"), config.per_class)
    test = first_of_each_class(_split(folder / "test"), config.test_per_class)
    return Dataset("cifar100", train, test, _class_names(folder / "meta"), TRAITS)


def download(root: Path) -> None:
    """Fetch the archive of 169 MB and unpack it below `root`."""
    from torchvision.datasets import CIFAR100

    CIFAR100(str(root / "cifar100"), download=True)


def _missing(folder: Path) -> list[str]:
    return [name for name in ("train", "test", "meta") if not (folder / name).is_file()]


def _split(path: Path) -> Split:
    content = read_pickle(path)
    for key in ("data", "fine_labels"):
        if key not in content:
            raise DataError(f"{path}: lacks {key!r}; it holds {', '.join(content) or 'nothing'}")
    pixels, labels = content["data"], np.asarray(content["fine_labels"])
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise DataError(f"{path}: 'data' is no array of bytes")
    if pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        raise DataError(f"{path}: 'data' is of shape {pixels.shape}, not (N, {3 * SIDE * SIDE})")
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        raise DataError(f"{path}: 'fine_labels' are no {len(pixels)} numbers, one for each image")
    x = torch.from_numpy(pixels).view(-1, 3, SIDE, SIDE)
    split = Split(x, torch.from_numpy(labels.astype(np.int64)))
    check_labels(split, CLASSES, where=path)
    return split


def _class_names(path: Path) -> tuple[str, ...]:
    names = read_pickle(path).get("fine_label_names")
    if not isinstance(names, list) or len(names) != CLASSES:
        raise DataError(f"{path}: 'fine_label_names' is no list of {CLASSES} names")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

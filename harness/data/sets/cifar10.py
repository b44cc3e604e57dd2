"""CIFAR-10: 50,000 + 10,000 colour photographs of 32x32 pixels, of ten animals and vehicles.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the official "python
version" (https://www.cs.toronto.edu/~kriz/cifar.html): the pickles `data_batch_1` to
`data_batch_5`, `test_batch` and `batches.meta` in a folder `cifar-10-batches-py`. Mean, standard
deviation and crop are those of EDD (arXiv:2511.09871) and of Mammoth (datasets/seq_cifar10.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harness.data.base import Dataset, Split, Traits, first_of_each_class, first_whole
from harness.data.cifar_pickles import SIDE, read_class_names, read_split

SOURCE = (
    "`data prepare cifar10 --download`, or unpack cifar-10-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html in ROOT/cifar10"
)

CLASSES = 10
TRAITS = Traits(
    mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2615), flip=True, crop_padding=4
)

_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_META = "batches.meta"


@dataclass(frozen=True, slots=True)
class Config:
    per_class: int | None = None  # the first training images of each class; None: all 5,000
    test_per_class: int | None = None  # likewise of the 1,000 test images


def num_classes(config: Config) -> int:
    del config
    return CLASSES


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 3, SIDE, SIDE


def load(config: Config, root: Path) -> Dataset:
    places = (root / "cifar10" / "cifar-10-batches-py", root / "cifar-10-batches-py")
    folder = first_whole("cifar10", places, missing=_missing, source=SOURCE)
    batches = [_split(folder / name) for name in _TRAIN]
    train = Split(torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches]))
    return Dataset(
        "cifar10",
        first_of_each_class(train, config.per_class),
        first_of_each_class(_split(folder / _TEST), config.test_per_class),
        read_class_names(folder / _META, key="label_names", classes=CLASSES),
        TRAITS,
    )


def download(root: Path) -> None:
    """Fetch the archive of 170 MB and unpack it below `root`."""
    from torchvision.datasets import CIFAR10

    CIFAR10(str(root / "cifar10"), download=True)


def _missing(folder: Path) -> list[str]:
    return [name for name in (*_TRAIN, _TEST, _META) if not (folder / name).is_file()]


def _split(path: Path) -> Split:
    return read_split(path, labels="labels", classes=CLASSES)

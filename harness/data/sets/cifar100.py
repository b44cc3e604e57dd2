"""CIFAR-100: 50,000 + 10,000 colour photographs of 32x32 pixels, 100 classes of everyday things.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the official "python
version" (https://www.cs.toronto.edu/~kriz/cifar.html): the pickles `train`, `test` and `meta` in a
folder `cifar-100-python`. Mean and standard deviation are those of CLIMB's released code
(github.com/lefebvju/climb, src/transforms.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.base import Dataset, Split, Traits, first_of_each_class, first_whole
from harness.data.cifar_pickles import SIDE, read_class_names, read_split

SOURCE = (
    "`data prepare cifar100 --download`, or unpack cifar-100-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html in ROOT/cifar100"
)

CLASSES = 100
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
    names = read_class_names(folder / "meta", key="fine_label_names", classes=CLASSES)
    return Dataset("cifar100", train, test, names, TRAITS)


def download(root: Path) -> None:
    """Fetch the archive of 169 MB and unpack it below `root`."""
    from torchvision.datasets import CIFAR100

    CIFAR100(str(root / "cifar100"), download=True)


def _missing(folder: Path) -> list[str]:
    return [name for name in ("train", "test", "meta") if not (folder / name).is_file()]


def _split(path: Path) -> Split:
    return read_split(path, labels="fine_labels", classes=CLASSES)

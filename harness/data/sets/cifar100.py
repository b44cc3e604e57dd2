"""CIFAR-100: 50,000 + 10,000 colour photographs of 32x32 pixels, 100 classes of everyday things.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the official "python
version" (https://www.cs.toronto.edu/~kriz/cifar.html): the pickles `train`, `test` and `meta` in a
folder `cifar-100-python`. Mean and standard deviation are those of CLIMB's released code
(github.com/lefebvju/climb, src/transforms.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.base import Traits
from harness.data.cifar_pickles import SIDE, read_class_names, stored_split
from harness.data.official import Official
from harness.data.source import Contents

SOURCE = (
    "`data prepare cifar100 --download`, or unpack cifar-100-python.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html in ROOT/cifar100"
)

CLASSES = 100
TRAITS = Traits(
    mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), flip=True, crop_padding=4
)

MD5 = {
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""As in torchvision/datasets/cifar.py."""


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


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    return Official(
        licence="none stated; cite the report",
        size="169 MB; prepared 184 MB",
        train=config.per_class or 500,
        test=config.test_per_class or 100,
        md5=MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "cifar100" / "cifar-100-python", root / "cifar-100-python"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    return [name for name in ("train", "test", "meta") if not (folder / name).is_file()]


def scan(folder: Path, config: Config) -> Contents:
    train, test = (
        stored_split([folder / name], labels="fine_labels", classes=CLASSES, count=count)
        for name, count in (("train", config.per_class), ("test", config.test_per_class))
    )
    meta = folder / "meta"
    names = read_class_names(meta, key="fine_label_names", classes=CLASSES)
    return Contents(train, test, names, watched=(meta,))


def download(root: Path) -> None:
    """Fetch the archive of 169 MB and unpack it below `root`."""
    from torchvision.datasets import CIFAR100

    CIFAR100(str(root / "cifar100"), download=True)

"""CIFAR-10: 50,000 + 10,000 colour photographs of 32x32 pixels, of ten animals and vehicles.

Krizhevsky, 2009, "Learning multiple layers of features from tiny images"; the official "python
version" (https://www.cs.toronto.edu/~kriz/cifar.html): the pickles `data_batch_1` to
`data_batch_5`, `test_batch` and `batches.meta` in a folder `cifar-10-batches-py`. Mean, standard
deviation and crop are those of EDD (arXiv:2511.09871) and of Mammoth (datasets/seq_cifar10.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.base import Traits
from harness.data.cifar_pickles import SIDE, read_class_names, stored_split
from harness.data.official import Official
from harness.data.source import Contents

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

MD5 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""As in torchvision/datasets/cifar.py."""


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


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    return Official(
        licence="none stated; cite the report",
        size="170 MB; prepared 184 MB",
        train=config.per_class or 5000,
        test=config.test_per_class or 1000,
        md5=MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "cifar10" / "cifar-10-batches-py", root / "cifar-10-batches-py"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    return [name for name in (*_TRAIN, _TEST, _META) if not (folder / name).is_file()]


def scan(folder: Path, config: Config) -> Contents:
    train, test = (
        stored_split(
            [folder / name for name in names], labels="labels", classes=CLASSES, count=count
        )
        for names, count in ((_TRAIN, config.per_class), ((_TEST,), config.test_per_class))
    )
    meta = folder / _META
    names = read_class_names(meta, key="label_names", classes=CLASSES)
    return Contents(train, test, names, watched=(meta,))


def download(root: Path) -> None:
    """Fetch the archive of 170 MB and unpack it below `root`."""
    from torchvision.datasets import CIFAR10

    CIFAR10(str(root / "cifar10"), download=True)

"""MedMNIST-40: medical images of 40 classes from seven sets of MedMNIST, at most 1,000 of a class.

Yang et al., 2023, MedMNIST v2, arXiv:2110.14795; files of github.com/MedMNIST/MedMNIST. BrainCL
(arXiv:2504.14727) names neither the sets nor the images that it keeps; of all seven sets with 40
classes in all, these alone have its 34,554 training and 1,944 test images (medmnist/info.py and
the class counts). Labels number the classes of the sets one after the other, which is not stated
there. Images to validate on are left out; gray images become three equal channels.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.base import DataError, Traits
from harness.data.npz import opened, stored_rows, stored_shape
from harness.data.official import Official
from harness.data.source import Contents, Rows, SplitSource, Stored

SOURCE = (
    "the seven files pathmnist_224.npz, dermamnist_224.npz, octmnist_224.npz, "
    "pneumoniamnist_224.npz, breastmnist_224.npz, bloodmnist_224.npz and tissuemnist_224.npz of "
    "https://github.com/MedMNIST/MedMNIST in ROOT/medmnist, or with `pip install medmnist` "
    "`data prepare medmnist40 --download`"
)

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "pathmnist": (
        *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle"),
        *("normal colon mucosa", "cancer-associated stroma"),
        "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma",
        *("basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma", "melanoma"),
        *("melanocytic nevi", "vascular lesions"),
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        *("basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte"),
        *("monocyte", "neutrophil", "platelet"),
    ),
    "tissuemnist": (
        *("collecting duct, connecting tubule", "distal convoluted tubule"),
        *("glomerular endothelial cells", "interstitial endothelial cells", "leukocytes"),
        *("podocytes", "proximal tubule segments", "thick ascending limb"),
    ),
}
"""The classes of each set in the order of its labels; from medmnist/info.py, shortened."""

MD5: Final[dict[str, dict[int, str]]] = {
    "pathmnist": {
        28: "a8b06965200029087d5bd730944a56c1",
        64: "55aa9c1e0525abe5a6b9d8343a507616",
        128: "ac42d08fb904d92c244187169d1fd1d9",
        224: "2c51a510bcdc9cf8ddb2af93af1eadec",
    },
    "dermamnist": {
        28: "0744692d530f8e62ec473284d019b0c7",
        64: "b70a2f5635c6199aeaa28c31d7202e1f",
        128: "2defd784463fa5243564e855ed717de1",
        224: "8974907d8e169bef5f5b96bc506ae45d",
    },
    "octmnist": {
        28: "c68d92d5b585d8d81f7112f81e2d0842",
        64: "e229e9440236b774d9f0dfef9d07bdaf",
        128: "0a97e76651ace45c5d943ee3f65b63ae",
        224: "abc493b6d529d5de7569faaef2773ba3",
    },
    "pneumoniamnist": {
        28: "28209eda62fecd6e6a2d98b1501bb15f",
        64: "8f4eceb4ccffa70c672198ea285246c6",
        128: "05b46931834c231683c68f40c47b2971",
        224: "d6a3c71de1b945ea11211b03746c1fe1",
    },
    "breastmnist": {
        28: "750601b1f35ba3300ea97c75c52ff8f6",
        64: "742edef2a1fd1524b2efff4bd7ba9364",
        128: "363e4b3f8d712e9b5de15470a2aaadf1",
        224: "b56378a6eefa9fed602bb16d192d4c8b",
    },
    "bloodmnist": {
        28: "7053d0359d879ad8a5505303e11de1dc",
        64: "2b94928a2ae4916078ca51e05b6b800b",
        128: "adace1e0ed228fccda1f39692059dd4c",
        224: "b718ff6835fcbdb22ba9eacccd7b2601",
    },
    "tissuemnist": {
        28: "ebe78ee8b05294063de985d821c1c34b",
        64: "123ece2eba09d0aa5d698fda57103344",
        128: "61b955355d7425a89687b06cca3ce0c2",
        224: "b077128c4a949f0a4eb01517f9037b9c",
    },
}
"""Of the file of each size (medmnist/info.py, version 3.0.2)."""

AT_MOST_1000: Final = (
    *(1000,) * 9,
    *(228, 359, 769, 80, 779, 1000, 99),
    *(1000,) * 4,
    *(1000,) * 2,
    *(147, 399),
    *(852, 1000, 1000, 1000, 849, 993, 1000, 1000),
    *(1000,) * 8,
)
"""Training images of each class, those of a class with more counted as 1,000: 34,554 in all."""

TEST_AT_MOST_50: Final = (
    *(50,) * 9,
    *(50, 50, 50, 23, 50, 50, 29),
    *(50,) * 4,
    *(50,) * 2,
    *(42, 50),
    *(50,) * 16,
)
"""Test images of each class, those of a class with more counted as 50: 1,944 in all."""


@dataclass(frozen=True, slots=True)
class Config:
    size: Literal[28, 64, 128, 224] = 224  # side of an image, in pixels; each has files of its own
    per_class: int = 1000  # the most training images of a class
    test_per_class: int = 50  # likewise of the test images
    data_seed: int = 0  # draws which; the same images for all trials

    def __post_init__(self) -> None:
        if min(self.per_class, self.test_per_class) < 1 or self.data_seed < 0:
            raise DataError("per_class and test_per_class must be at least 1, data_seed at least 0")


def num_classes(config: Config) -> int:
    del config
    return sum(map(len, CLASSES.values()))


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def traits(config: Config) -> Traits:
    # ImageNet's constants and a border of an eighth of the side: not stated in BrainCL.
    return Traits(
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        flip=True,
        crop_padding=config.size // 8,
    )


def official(config: Config) -> Official:
    return Official(
        licence="CC BY 4.0; dermamnist CC BY-NC 4.0",
        size="some 20 GB at 224 pixels (seven npz files); prepared 5.5 GB",
        train=_fewer(AT_MOST_1000, config.per_class),
        test=_fewer(TEST_AT_MOST_50, config.test_per_class),
        md5={_path(Path(), flag, config).name: sums[config.size] for flag, sums in MD5.items()},
    )


def _fewer(counts: Sequence[int], most: int) -> tuple[int, ...] | None:
    """The counts, at most so many; None if more are asked for than were counted."""
    return tuple(min(count, most) for count in counts) if most <= max(counts) else None


def places(root: Path) -> tuple[Path, ...]:
    return root / "medmnist", root / "medmnist40"


def missing(folder: Path, config: Config) -> list[str]:
    files = (_path(folder, flag, config) for flag in CLASSES)
    return [path.name for path in files if not path.is_file()]


def scan(folder: Path, config: Config) -> Contents:
    """The images kept, set after set, in the order of their rows.

    Raises:
        DataError: if a file is damaged, or has other classes or images of another size.
    """
    names = tuple(f"{flag}: {name}" for flag, classes in CLASSES.items() for name in classes)
    train, test = (
        _capped(folder, part, cap, config)
        for part, cap in (("train", config.per_class), ("test", config.test_per_class))
    )
    return Contents(train, test, names)


def download(root: Path) -> None:
    """Fetch the files of 224 pixels, some 20 GB, from where the package `medmnist` says they are.

    Raises:
        RuntimeError: if that package is not installed, or a file cannot be fetched.
    """
    try:
        info = importlib.import_module("medmnist").INFO
    except ImportError as error:
        raise RuntimeError("needs `pip install medmnist`") from error
    from torchvision.datasets.utils import download_url

    for flag in CLASSES:
        name, source = f"{flag}_224.npz", info[flag]
        download_url(source["url_224"], str(root / "medmnist"), name, source["MD5_224"])


def kept_rows(labels: NDArray[np.int64], *, classes: int, cap: int, seed: int) -> NDArray[np.int64]:
    """The rows that are kept of each class, ascending: all, or `cap` drawn without replacement.

    Args:
        labels: (N,), from 0 to classes - 1.
        classes: How many there are.
        cap: The most rows of a class. Those of a smaller cap are among those of a larger one.
        seed: Of a generator of its own for each class.
    """
    kept = [np.flatnonzero(labels == label) for label in range(classes)]
    drawn = [rows[np.random.RandomState(seed).permutation(len(rows))[:cap]] for rows in kept]
    return np.sort(np.concatenate(drawn))


def _path(folder: Path, flag: str, config: Config) -> Path:
    suffix = "" if config.size == 28 else f"_{config.size}"  # the first release had only one size
    return folder / f"{flag}{suffix}.npz"


def _capped(folder: Path, part: str, cap: int, config: Config) -> SplitSource:
    """The kept images of one split."""
    kept: list[tuple[Path, NDArray[np.int64]]] = []
    numbers: list[NDArray[np.int64]] = []
    offset = 0
    for flag, classes in CLASSES.items():
        path = _path(folder, flag, config)
        labels = _labels(path, f"{part}_labels", len(classes))
        _check_images(path, f"{part}_images", len(labels), config)
        rows = kept_rows(labels, classes=len(classes), cap=cap, seed=config.data_seed)
        kept.append((path, rows))
        numbers.append(offset + labels[rows])
        offset += len(classes)
    y = np.concatenate(numbers)
    files = [path for path, _ in kept]
    read = partial(_read, kept, f"{part}_images")
    return SplitSource(Stored(files, image_shape(config), len(y), read), torch.from_numpy(y))


def _read(kept: Sequence[tuple[Path, NDArray[np.int64]]], member: str) -> Iterator[Rows]:
    """The kept images, a block at a time; gray ones in three channels."""
    start = 0
    for path, rows in kept:
        for block in stored_rows(path, member, rows):
            is_gray = block.ndim == 3
            images = block[:, None].repeat(3, 1) if is_gray else block.transpose(0, 3, 1, 2)
            yield np.arange(start, start + len(block)), images
            start += len(block)


def _labels(path: Path, member: str, classes: int) -> NDArray[np.int64]:
    """The labels (N,) of a file; every class has one."""
    with opened(path, member) as file:
        labels: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or labels.shape[1] != 1:
        raise DataError(f"{path}: {member} are {_kind(labels.shape, labels.dtype)}, not one a row")
    found = np.unique(labels).tolist()
    if found != list(range(classes)):
        raise DataError(f"{path}: {member} has classes {found}, not 0 to {classes - 1}")
    return labels[:, 0].astype(np.int64)


def _check_images(path: Path, member: str, count: int, config: Config) -> None:
    shape, dtype = stored_shape(path, member)
    gray = (count, config.size, config.size)
    if shape not in (gray, (*gray, 3)) or dtype != np.uint8:
        raise DataError(
            f"{path}: {member} are {_kind(shape, dtype)}, not {count} images of bytes, "
            f"{config.size}x{config.size} pixels each"
        )


def _kind(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{dtype} of shape {shape}"

"""MedMNIST-40: medical images of 40 classes from seven sets of MedMNIST, at most 1,000 of a class.

Yang et al., 2023, MedMNIST v2, arXiv:2110.14795; files of github.com/MedMNIST/MedMNIST. BrainCL
(arXiv:2504.14727) names neither the sets nor the images that it keeps; of all seven sets with 40
classes in all, these alone have its 34,554 training and 1,944 test images (medmnist/info.py and
the class counts). Labels number the classes of the sets one after the other, which is not stated
there. Images to validate on are left out; gray images become three equal channels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.base import DataError, Dataset, Split, Traits, first_whole
from harness.data.cache import Arrays, cached_arrays
from harness.data.npz import opened, stored_rows, stored_shape

SOURCE = (
    "the seven files pathmnist_224.npz, dermamnist_224.npz, octmnist_224.npz, "
    "pneumoniamnist_224.npz, breastmnist_224.npz, bloodmnist_224.npz and tissuemnist_224.npz of "
    "https://github.com/MedMNIST/MedMNIST in ROOT/medmnist"
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


def load(config: Config, root: Path) -> Dataset:
    def missing(folder: Path) -> list[str]:
        files = (_path(folder, flag, config) for flag in CLASSES)
        return [path.name for path in files if not path.is_file()]

    places = (root / "medmnist", root / "medmnist40")
    folder = first_whole("medmnist40", places, missing=missing, source=SOURCE)
    kept = root / "prepared" / f"medmnist40-{_digest(folder, config)}.npz"
    arrays = cached_arrays(kept, lambda: _made(folder, config))
    train, test = (
        Split(torch.from_numpy(arrays[part]), torch.from_numpy(arrays[f"{part}_labels"]).long())
        for part in ("train", "test")
    )
    names = tuple(f"{flag}: {name}" for flag, classes in CLASSES.items() for name in classes)
    # ImageNet's constants and a border of an eighth of the side: not stated in BrainCL.
    traits = Traits(
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        flip=True,
        crop_padding=config.size // 8,
    )
    return Dataset("medmnist40", train, test, names, traits)


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


def _digest(folder: Path, config: Config) -> str:
    """16 hex digits for the settings and the sizes of the files."""
    sizes = {flag: _path(folder, flag, config).stat().st_size for flag in CLASSES}
    made_from = json.dumps([astuple(config), sizes])
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _made(folder: Path, config: Config) -> Arrays:
    train = _capped(folder, "train", config.per_class, config)
    return train | _capped(folder, "test", config.test_per_class, config)


def _capped(folder: Path, part: str, cap: int, config: Config) -> Arrays:
    """The kept images of one split (N, 3, S, S), set after set, and their labels (N,)."""
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
    y = np.concatenate(numbers).astype(np.uint8)
    x = np.empty((len(y), *image_shape(config)), np.uint8)
    start = 0
    for path, rows in kept:
        for block in stored_rows(path, f"{part}_images", rows):
            is_gray = block.ndim == 3
            stop = start + len(block)
            x[start:stop] = block[:, None] if is_gray else block.transpose(0, 3, 1, 2)
            start = stop
    return {part: x, f"{part}_labels": y}


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

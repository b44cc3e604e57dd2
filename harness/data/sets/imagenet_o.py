"""ImageNet-O: 2,000 photographs of things of none of ImageNet's 1,000 classes, to be told apart.

Hendrycks et al., 2021, "Natural adversarial examples", arXiv:1907.07174; folder `imagenet-o` of
github.com/hendrycks/natural-adv-examples. Its folders are called after classes of ImageNet, but
hold other things: labels mean nothing here. There are no training images: so that the set has the
parts of any other, the training split is the test split.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.data.base import DataError, Dataset, first_whole
from harness.data.decode import Picture, Shape, decoded_split, first_pictures, picture_names
from harness.data.sets import imagenet100

SOURCE = (
    "fetch imagenet-o.tar of https://github.com/hendrycks/natural-adv-examples by hand and unpack "
    "it as ROOT/imagenet-o/<class>/*.JPEG"
)

TRAITS = imagenet100.TRAITS  # they are compared with images of ImageNet


@dataclass(frozen=True, slots=True)
class Config:
    # As the images that they are compared with are prepared, see imagenet100.
    size: int = 224  # side of an image, in pixels
    resize: Literal["exact", "center_crop"] = "exact"
    classes: int = 200  # folders that there must be

    def __post_init__(self) -> None:
        if min(self.classes, self.size) < 1:
            raise DataError("classes and size must be at least 1")


def num_classes(config: Config) -> int:
    return config.classes


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def load(config: Config, root: Path) -> Dataset:
    """The images, as training and as test split; labels number the folders in sorted order."""
    places = (root / "imagenet-o", root / "imagenet_o")
    folder = first_whole("imagenet_o", places, missing=_missing, source=SOURCE)
    names = _folders(folder)
    if len(names) != config.classes:
        raise DataError(
            f"{folder}: {len(names)} folders, but the setting `classes` is {config.classes}; "
            "unpack the archive again"
        )
    pictures = [
        Picture(f"{name}/{file}", label)
        for label, name in enumerate(names)
        for file in picture_names(folder / name, absent="unpack the archive again")
    ]
    split = decoded_split(
        folder,
        first_pictures(pictures, None, where=folder),
        Shape(config.size, config.resize),
        name="imagenet_o",
        root=root,
    )
    return Dataset("imagenet_o", split, split, tuple(names), TRAITS)


def _missing(folder: Path) -> list[str]:
    return [] if folder.is_dir() and _folders(folder) else ["folders of images"]


def _folders(folder: Path) -> list[str]:
    entries = (entry for entry in folder.iterdir() if entry.is_dir())
    return sorted(entry.name for entry in entries if not entry.name.startswith("."))

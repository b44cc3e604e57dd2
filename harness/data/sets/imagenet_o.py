"""ImageNet-O: 2,000 photographs of things of none of ImageNet's 1,000 classes, to be told apart.

Hendrycks et al., 2021, "Natural adversarial examples", arXiv:1907.07174; folder `imagenet-o` of
github.com/hendrycks/natural-adv-examples. Its folders are called after classes of ImageNet, but
hold other things: labels mean nothing here. There are no training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.sets import imagenet100
from harness.data.sets.imagenet100 import class_folders
from harness.data.source import Contents, Picture, SplitSource, first_pictures, picture_names

SOURCE = (
    "fetch imagenet-o.tar of https://github.com/hendrycks/natural-adv-examples by hand and unpack "
    "it as ROOT/imagenet-o/<class>/*.JPEG"
)

EVALUATION_ONLY = True
TRAITS = imagenet100.TRAITS  # they are compared with images of ImageNet

_UNPACK = "unpack the archive again"


@dataclass(frozen=True, slots=True)
class Config:
    # As the images that they are compared with are prepared, see imagenet100.
    size: int = 224  # side of an image, in pixels
    resize: Literal["exact", "center_crop"] = "exact"
    classes: int = 200  # folders that there must be
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

    def __post_init__(self) -> None:
        if min(self.classes, self.size) < 1:
            raise DataError("classes and size must be at least 1")


def num_classes(config: Config) -> int:
    return config.classes


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    del config
    return Official(
        licence="MIT (huggingface.co/datasets/cais/imagenet-o)",
        size="2,000 files; prepared 0.3 GB at 224 pixels",
        train=None,
        test=None,  # 2,000 in all
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "imagenet-o", root / "imagenet_o"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    return [] if folder.is_dir() and class_folders(folder) else ["folders of images"]


def scan(folder: Path, config: Config) -> Contents:
    """The images; labels number the folders in sorted order.

    Raises:
        DataError: if there are more or fewer folders than the setting says.
    """
    names = class_folders(folder)
    if len(names) != config.classes:
        raise DataError(
            f"{folder}: {len(names)} folders, but the setting `classes` is {config.classes}; "
            f"{_UNPACK}"
        )
    pictures = [
        Picture(f"{name}/{file}", label)
        for label, name in enumerate(names)
        for file in picture_names(folder / name, absent=_UNPACK)
    ]
    chosen = first_pictures(pictures, None, where=folder)
    test = SplitSource.of_pictures(folder, chosen, Shape(config.size, config.resize))
    return Contents(None, test, tuple(names), watched=(folder,))

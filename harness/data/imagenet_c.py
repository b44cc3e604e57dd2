"""ImageNet-C: ImageNet's validation images, corrupted and stored by its authors.

Hendrycks and Dietterich, 2019, arXiv:1903.12261. Its images were scaled and cropped to 224 pixels
before they were corrupted, and are taken as they are at that size. They are paired with the images
of a data set by the names of the classes, which are those of the folders, and in each class by
order: the first images of a data set's class are the first files of the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from harness.data.base import DataError, Dataset, first_whole
from harness.data.corruptions.registry import FAMILIES
from harness.data.decode import Picture, Shape, decoded_split, picture_names

SOURCE: Final = (
    "fetch the archives of https://zenodo.org/record/2235448 by hand and unpack them as "
    "ROOT/imagenet-c/<corruption>/<severity>/<class>/*.JPEG, with or without a folder for each "
    "family of corruptions"
)

Variant = tuple[str, int]
"""A corruption and its severity."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredImages:
    """One corruption and severity of all test images; uint8 (N, 3, S, S), mapped into memory.

    `place` (N,) says where the image of each row of the test split is.
    """

    x: Tensor
    place: Tensor

    def images(self, rows: Tensor) -> Tensor:
        """The corrupted images of rows of the test split, on the CPU."""
        return self.x[self.place[rows.cpu()]]


def stored_images(
    dataset: Dataset, variants: Iterable[Variant], root: Path
) -> dict[Variant, StoredImages]:
    """The corrupted versions of a data set's test images; files are decoded at the first call.

    Args:
        dataset: With folders of ImageNet as names of its classes, on any device.
        variants: Which are wanted.
        root: The data root; ImageNet-C is in its folder `imagenet-c` or `imagenet_c`.

    Raises:
        DataError: if a folder or image is not there, or the data set's images have another shape.
    """
    channels, height, width = dataset.image_shape
    if channels != 3 or height != width:
        raise DataError(
            f"imagenet_c: its images are squares of 3 channels, but those of {dataset.name} are "
            f"{channels}x{height}x{width}"
        )
    variants = list(variants)
    places = (root / "imagenet-c", root / "imagenet_c")
    missing = partial(_missing, variants=variants)
    folder = first_whole("imagenet_c", places, missing=missing, source=SOURCE)
    return {
        variant: _stored(_folder(folder, variant), variant, dataset, root) for variant in variants
    }


def _folder(place: Path, variant: Variant) -> Path:
    """Where a corruption and severity is, or would be."""
    name, severity = variant
    plain = place / name / str(severity)
    family = next(family for family, names in FAMILIES.items() if name in names)
    grouped = place / family / name / str(severity)
    return grouped if grouped.is_dir() and not plain.is_dir() else plain


def _missing(place: Path, variants: Iterable[Variant]) -> list[str]:
    folders = (_folder(place, variant) for variant in variants)
    return [str(folder.relative_to(place)) for folder in folders if not folder.is_dir()]


def _stored(folder: Path, variant: Variant, dataset: Dataset, root: Path) -> StoredImages:
    labels = dataset.test.y.cpu()
    counts = labels.bincount(minlength=dataset.num_classes).tolist()
    # Sorted, so that the prepared file does not depend on the order of the classes.
    pictures = sorted(
        (
            Picture(f"{name}/{file}", label)
            for label, (name, count) in enumerate(zip(dataset.class_names, counts, strict=True))
            for file in _first_files(folder / name, count)
        ),
        key=lambda picture: picture.path,
    )
    name = f"imagenet_c-{variant[0]}-{variant[1]}"
    shape = Shape(dataset.image_shape[-1], "center_crop")
    split = decoded_split(folder, pictures, shape, name=name, root=root)
    place = torch.empty_like(labels)
    place[labels.argsort(stable=True)] = split.y.argsort(stable=True)
    return StoredImages(split.x, place)


def _first_files(folder: Path, count: int) -> list[str]:
    names = sorted(picture_names(folder, absent=f"to get it: {SOURCE}"))
    if len(names) < count:
        raise DataError(f"{folder}: {len(names)} images, but the data set tests {count}; {SOURCE}")
    return names[:count]

"""ImageNet-C: ImageNet's validation images, corrupted and stored by its authors.

Hendrycks and Dietterich, 2019, arXiv:1903.12261. Its images were scaled and cropped to 224 pixels
before they were corrupted, and are taken as they are at that size. Every corruption at every
severity is a variant of the same images, and a domain here: variants follow each other, and within
each the classes in sorted order with the first files of their folders. There are no training
images; the evaluator `corruption` measures with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harness.data.base import DataError, Traits
from harness.data.corruptions.pixels import SEVERITIES
from harness.data.corruptions.registry import CORRUPTIONS, FAMILIES
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.sets import imagenet100
from harness.data.sets.imagenet100 import published
from harness.data.source import Contents, Picture, SplitSource, picture_names
from harness.errors import unknown

SOURCE: Final = (
    "fetch the archives of https://zenodo.org/record/2235448 by hand and unpack them as "
    "ROOT/imagenet-c/<corruption>/<severity>/<class>/*.JPEG, with or without a folder for each "
    "family of corruptions"
)

EVALUATION_ONLY = True
TRAITS = imagenet100.TRAITS
MD5: Final = {
    "noise.tar": "e80562d7f6c3f8834afb1ecf27252745",
    "blur.tar": "2d8e81fdd8e07fef67b9334fa635e45c",
    "weather.tar": "33ffea4db4d93fe4a428c40a6ce0c25d",
    "digital.tar": "89157860d7b10d5797849337ca2e5c03",
}
"""As published at zenodo.org/records/2235448."""

Variant = tuple[str, int]
"""A corruption and its severity."""


@dataclass(frozen=True, slots=True)
class Config:
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = SEVERITIES
    # A published list of imagenet100, or names of folders; in sorted order
    class_list: Literal["pycil", "douillard"] | tuple[str, ...] = "pycil"
    size: int = 224  # side of an image, in pixels
    # The first images of each class in every variant: a number for all or one for each; None: all
    test_per_class: int | tuple[int, ...] | None = None
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

    def __post_init__(self) -> None:
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise unknown("corruption", name, CORRUPTIONS, where="corruptions")
        if not set(self.severities) <= set(SEVERITIES) or not self.severities:
            raise DataError("severities are numbers from 1 to 5")
        if self.size < 1:
            raise DataError("size must be at least 1")

    def variants(self) -> list[Variant]:
        """Each corruption at each severity, in the order of the domains."""
        return [(name, severity) for name in self.corruptions for severity in self.severities]


def num_classes(config: Config) -> int:
    return len(_names(config))


def num_domains(config: Config) -> int:
    return len(config.variants())


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    per_class = 50 if config.test_per_class is None else config.test_per_class
    variants = len(config.variants())
    return Official(
        licence="CC BY 4.0",
        size="50 GB; prepared 56 GB for 100 classes at 224 pixels",
        train=None,
        test=variants * per_class if isinstance(per_class, int) else None,
        md5=MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "imagenet-c", root / "imagenet_c"


def missing(folder: Path, config: Config) -> list[str]:
    folders = (_folder(folder, variant) for variant in config.variants())
    return [str(one.relative_to(folder)) for one in folders if not one.is_dir()]


def scan(folder: Path, config: Config) -> Contents:
    """The variants that are asked for.

    Raises:
        DataError: if a class is not there, or has too few images.
    """
    names = _names(config)
    counts = config.test_per_class
    wanted = counts if isinstance(counts, tuple) else (counts,) * len(names)
    if len(wanted) != len(names):
        raise DataError(f"test_per_class: {len(wanted)} numbers for {len(names)} classes")
    pictures = [
        Picture(f"{place.relative_to(folder)}/{name}/{file}", label, domain)
        for domain, variant in enumerate(config.variants())
        for place in (_folder(folder, variant),)
        for label, (name, count) in enumerate(zip(names, wanted, strict=True))
        for file in _first_files(place / name, count)
    ]
    shape = Shape(config.size, "center_crop")
    test = SplitSource.of_pictures(folder, pictures, shape)
    return Contents(None, test, names)


def _names(config: Config) -> tuple[str, ...]:
    listed = config.class_list
    return tuple(sorted(listed if isinstance(listed, tuple) else published(listed)))


def _folder(place: Path, variant: Variant) -> Path:
    """Where a corruption and severity is, or would be."""
    name, severity = variant
    plain = place / name / str(severity)
    family = next(family for family, names in FAMILIES.items() if name in names)
    grouped = place / family / name / str(severity)
    return grouped if grouped.is_dir() and not plain.is_dir() else plain


def _first_files(folder: Path, count: int | None) -> Sequence[str]:
    names = sorted(picture_names(folder, absent=f"to get it: {SOURCE}"))
    if count is not None and len(names) < count:
        raise DataError(f"{folder}: {len(names)} images, but {count} are wanted; {SOURCE}")
    return names[:count]

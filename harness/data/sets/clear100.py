"""CLEAR-100: photographs of 100 classes in 11 buckets of time, from 2004 to 2014; each is a domain.

Lin et al., 2021, arXiv:2201.06289, https://clear-benchmark.github.io; train and test folders are
those of its IID protocol (Avalanche, avalanche/benchmarks/datasets/clear; CLIMB, src/
clear_dataset.py). Below `train` and below `test`: `class_names.txt`, a name a line, whose number is
the label; `labeled_metadata.json`, for every bucket and class the path of a file; and these files,
whose entries give the paths of the images. Nothing else is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.source import Contents, Picture, SplitSource, first_pictures

SOURCE = (
    "clear100-train.zip and clear100-test.zip of https://clear-benchmark.github.io, unpacked as "
    "ROOT/clear/train and ROOT/clear/test"
)

_METADATA = "labeled_metadata.json"
_NAMES = "class_names.txt"

# ImageNet's constants, as in CLIMB's src/transforms.py.
TRAITS = Traits(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True)


@dataclass(frozen=True, slots=True)
class Config:
    classes: int = 100  # that the files must hold; CLEAR-10 has 11
    buckets: int = 11  # likewise
    size: int = 224  # side of an image in pixels: of its shorter side, then the middle is cut out
    per_class: int | None = None  # the first training images of a class in a bucket; None: all
    test_per_class: int | None = None  # likewise of the test images
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

    def __post_init__(self) -> None:
        if min(self.classes, self.buckets, self.size) < 1:
            raise DataError("classes, buckets and size must be at least 1")


def num_classes(config: Config) -> int:
    return config.classes


def num_domains(config: Config) -> int:
    return config.buckets


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    del config
    return Official(
        licence="images under their authors' Creative Commons licences (YFCC100M)",
        size="two zip files; prepared 0.15 GB for 1,000 images at 224 pixels",
        train=None,  # not stated for each class
        test=None,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "clear", root / "clear100"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    wanted = [f"{part}/{file}" for part in ("train", "test") for file in (_NAMES, _METADATA)]
    return [name for name in wanted if not (folder / name).is_file()]


def scan(folder: Path, config: Config) -> Contents:
    """The images that the JSON files name.

    Raises:
        DataError: if a file of names is not as published, or train and test do not match.
    """
    names = _class_names(folder / "train", config)
    buckets = list(_metadata(folder / "train", config))
    for found, wanted, file in (
        (_class_names(folder / "test", config), names, _NAMES),
        (sorted(_metadata(folder / "test", config)), sorted(buckets), _METADATA),
    ):
        if found != wanted:
            raise DataError(f"{folder / 'test' / file}: not the classes or buckets of train")
    train, test = (_split(folder / part, names, buckets, config) for part in ("train", "test"))
    watched = [folder / part / file for part in ("train", "test") for file in (_NAMES, _METADATA)]
    for part in ("train", "test"):
        watched += _lists(folder / part, _metadata(folder / part, config))
    return Contents(train, test, names, tuple(watched))


def _class_names(folder: Path, config: Config) -> tuple[str, ...]:
    path = folder / _NAMES
    names = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = tuple(name.strip() for name in names if name.strip())
    if len(names) != config.classes:
        raise DataError(
            f"{path}: {len(names)} classes, but the setting `classes` is {config.classes}"
        )
    return names


def _metadata(folder: Path, config: Config) -> dict[str, Any]:
    """Bucket to class to path, in the order of the file, which is that of time."""
    path = folder / _METADATA
    buckets = _json(path)
    if len(buckets) != config.buckets:
        raise DataError(
            f"{path}: {len(buckets)} buckets, but the setting `buckets` is {config.buckets}"
        )
    return buckets


def _split(folder: Path, names: tuple[str, ...], buckets: list[str], config: Config) -> SplitSource:
    metadata = _metadata(folder, config)
    pictures = [
        Picture(path, label, domain)
        for domain, bucket in enumerate(buckets)
        for label, name in enumerate(names)
        for path in _paths(folder, metadata[bucket], bucket, name)
    ]
    count = config.per_class if folder.name == "train" else config.test_per_class
    chosen = first_pictures(pictures, count, where=folder)
    return SplitSource.of_pictures(folder, chosen, Shape(config.size, "center_crop"))


def _lists(folder: Path, metadata: dict[str, dict[str, str]]) -> Iterator[Path]:
    """The files that name the images of a class in a bucket."""
    for files in metadata.values():
        yield from (folder / path for path in files.values())


def _paths(folder: Path, files: object, bucket: str, name: str) -> Iterator[str]:
    """The paths of a class's images in a bucket, relative to `folder`."""
    if not isinstance(files, dict) or name not in files:
        raise DataError(f"{folder / _METADATA}: bucket {bucket!r} has no class {name!r}")
    path = folder / _inside(files[name], folder / _METADATA)
    images = _json(path)
    if not images:
        raise DataError(f"{path}: no image of class {name!r} in bucket {bucket!r}")
    for key, image in images.items():
        if not isinstance(image, dict) or "IMG_PATH" not in image:
            raise DataError(f"{path}: image {key!r} has no IMG_PATH")
        yield _inside(image["IMG_PATH"], path)


def _inside(relative: object, where: Path) -> str:
    """A path of a JSON file, which must not lead out of the folder of its split."""
    if not isinstance(relative, str):
        raise DataError(f"{where}: {relative!r} is no path")
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where}: {relative!r} leads out of the data set")
    return str(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no dictionary")
    return content

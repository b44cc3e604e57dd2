"""TinyImageNet: 100,000 + 10,000 photographs of 64x64 pixels, of 200 classes of ImageNet.

Le and Yang, 2015, "Tiny ImageNet visual recognition challenge"; the official folder
`tiny-imagenet-200`. A class's label is the number of its line in `wnids.txt`, unless the labels
are asked for in sorted order, which makes other tasks. Test images are those of `val`, since those
of `test` have no labels; `val` may also have been sorted into folders of classes. Instead of these
files there may be the arrays that Mammoth fetches (`harness.data.tiny_imagenet_shards`). Mean,
standard deviation and crop are those of EDD (arXiv:2511.09871) and of Mammoth
(datasets/seq_tinyimagenet.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harness.data import tiny_imagenet_shards
from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.source import Contents, Picture, SplitSource, first_pictures, picture_names

SOURCE = (
    "fetch http://cs231n.stanford.edu/tiny-imagenet-200.zip by hand and unpack it as "
    "ROOT/tiny-imagenet-200, or copy Mammoth's arrays to ROOT/tiny_imagenet/processed"
)

SIDE: Final = 64  # of an image, in pixels
TRAITS = Traits(
    mean=(0.4802, 0.4480, 0.3975), std=(0.2770, 0.2691, 0.2821), flip=True, crop_padding=4
)

_WNIDS: Final = "wnids.txt"
_ANNOTATIONS: Final = "val_annotations.txt"
_UNPACK: Final = "unpack the archive again"
_WNID: Final = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class Config:
    order: Literal["wnids", "sorted"] = "wnids"  # of the labels: that of wnids.txt, or of the names
    classes: int = 200  # that wnids.txt must hold
    per_class: int | None = None  # the first training images of each class; None: all 500
    test_per_class: int | None = None  # likewise of the 50 test images
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise DataError("classes must be at least 1")


def num_classes(config: Config) -> int:
    return config.classes


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 3, SIDE, SIDE


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    return Official(
        licence="none stated; images of ImageNet, for research",
        size="248 MB; prepared 1.4 GB",
        train=config.per_class or 500,
        test=config.test_per_class or 50,
        md5={"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},  # Avalanche
    )


def places(root: Path) -> tuple[Path, ...]:
    here = root / "tiny_imagenet"
    return here / "tiny-imagenet-200", root / "tiny-imagenet-200", here, root / "TINYIMG"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    if tiny_imagenet_shards.found(folder):
        return []
    lacking = [] if (folder / _WNIDS).is_file() else [_WNIDS]
    return lacking + [name for name in ("train", "val") if not (folder / name).is_dir()]


def scan(folder: Path, config: Config) -> Contents:
    """The folders of pictures, or the shards of arrays if those are there.

    Raises:
        DataError: if something is not as published.
    """
    named = folder / _WNIDS
    if tiny_imagenet_shards.found(folder):
        if config.order == "sorted":
            raise DataError(f"{folder}: order: the labels of the shards have no names to sort")
        train, test = (
            tiny_imagenet_shards.split(folder, part, config.classes, count)
            for part, count in (("train", config.per_class), ("val", config.test_per_class))
        )
        return Contents(train, test, tuple(f"class {label}" for label in range(config.classes)))
    wnids = _wnids(named, config)
    train = _split(folder / "train", wnids, config.per_class)
    test = _split(folder / "val", wnids, config.test_per_class)
    watched = (named, folder / "train", folder / "val", folder / "val" / _ANNOTATIONS)
    return Contents(train, test, _class_names(folder, wnids), watched)


def _wnids(path: Path, config: Config) -> list[str]:
    """The classes in the order of their labels."""
    wnids: list[str] = []
    for number, line in _lines(path):
        if not _WNID.fullmatch(line) or line in wnids:
            reason = "named twice" if line in wnids else "no WordNet id such as n02124075"
            raise DataError(f"{path}: line {number}: {line[:40]!r} is {reason}")
        wnids.append(line)
    if len(wnids) != config.classes:
        raise DataError(
            f"{path}: {len(wnids)} classes, but the setting `classes` is {config.classes}"
        )
    return sorted(wnids) if config.order == "sorted" else wnids


def _class_names(folder: Path, wnids: list[str]) -> tuple[str, ...]:
    """What words.txt says of each class; the classes themselves where it says nothing."""
    path = folder / "words.txt"
    words = (line.partition("\t") for _, line in _lines(path)) if path.is_file() else ()
    names = {wnid: name for wnid, _, name in words if name}
    return tuple(names.get(wnid, wnid) for wnid in wnids)


def _split(folder: Path, wnids: list[str], count: int | None) -> SplitSource:
    sorted_out = folder.name == "train" or any((folder / wnid).is_dir() for wnid in wnids)
    found = _in_folders(folder, wnids) if sorted_out else _annotated(folder, wnids)
    pictures = first_pictures(list(found), count, where=folder)
    return SplitSource.of_pictures(folder, pictures, Shape(SIDE, "none"))


def _in_folders(folder: Path, wnids: list[str]) -> Iterator[Picture]:
    """The pictures in <class>/images, or in <class> itself."""
    for label, wnid in enumerate(wnids):
        place = f"{wnid}/images" if (folder / wnid / "images").is_dir() else wnid
        for name in picture_names(folder / place, absent=_UNPACK):
            yield Picture(f"{place}/{name}", label)


def _annotated(folder: Path, wnids: list[str]) -> Iterator[Picture]:
    """The pictures in `images`, whose classes are those that val_annotations.txt gives them."""
    path = folder / _ANNOTATIONS
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    present = set(picture_names(folder / "images", absent=_UNPACK))
    named: dict[str, str] = {}
    for number, line in _lines(path):
        name, wnid, *_ = (*line.split("\t"), "")  # the corners of a box follow
        if wnid not in labels:
            raise DataError(f"{path}: line {number}: class {wnid[:40]!r} is not in {_WNIDS}")
        if name not in present or name in named:
            reason = "named twice" if name in named else f"not in {folder / 'images'}"
            raise DataError(f"{path}: line {number}: {name[:40]!r} is {reason}")
        named[name] = wnid
        yield Picture(f"images/{name}", labels[wnid])
    absent = [f"image {name}" for name in sorted(present - set(named))]
    absent += [f"class {wnid}" for wnid in sorted(set(wnids) - set(named.values()))]
    if absent:
        raise DataError(f"{path}: no line has {absent[0]}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold anything, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()

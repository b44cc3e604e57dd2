"""ImageNet-LT: a long-tailed selection of ILSVRC 2012, 1,280 to 5 training images of a class.

Liu et al., 2019, arXiv:1904.05160 (github.com/zhmiao/OpenLongTailRecognition-OLTR): 115,846
training images of 1,000 classes in `ImageNet_LT_train.txt`, and the 50,000 of ILSVRC's validation
images, balanced, in `ImageNet_LT_test.txt`; a line an image, `train/<class>/<file> <label>`. Its
20,000 images to validate on are not read: a trial takes its own share of the training images.

The ImageNet-100-LT of BrainCL (arXiv:2504.14727) has 1,000 to 5 images of a class, which is no part
of these lists: that is data set imagenet100 with `imbalance: {max: 1000, min: 5}`. This one keeps
the lines of 100 classes, unless it is asked for others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.sets import imagenet100
from harness.data.sets.imagenet100 import published
from harness.data.source import Contents, Picture, SplitSource, first_pictures

SOURCE = (
    "ImageNet_LT_train.txt and ImageNet_LT_test.txt of "
    "https://github.com/zhmiao/OpenLongTailRecognition-OLTR in ROOT/imagenet, beside the folders "
    "train and val of ILSVRC 2012 with their folders of classes"
)

ALL: Final = 1000  # classes
TRAITS = imagenet100.TRAITS

_LISTS: Final = {"train": "ImageNet_LT_train.txt", "test": "ImageNet_LT_test.txt"}


@dataclass(frozen=True, slots=True)
class Config:
    # A published list of imagenet100; all 1,000 classes; or names of folders. In sorted order.
    class_list: Literal["pycil", "douillard", "all"] | tuple[str, ...] = "pycil"
    size: int = 224  # side of an image, in pixels
    resize: Literal["exact", "center_crop"] = "exact"
    test_per_class: int | None = None  # the first test images of each class; None: all 50
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError("size must be at least 1")


def num_classes(config: Config) -> int:
    names = _chosen(config)
    return ALL if names is None else len(names)


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    return Official(
        licence="lists BSD; images for research and teaching, not commercial (image-net.org)",
        size="as imagenet100; prepared 25 GB at 224 pixels for all classes",
        train=None,  # 115,846 in all of 1,000 classes
        test=config.test_per_class or 50,
        md5=imagenet100.MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return (root / "imagenet",)


def missing(folder: Path, config: Config) -> list[str]:
    del config
    lists = [name for name in _LISTS.values() if not (folder / name).is_file()]
    return lists + [name for name in ("train", "val") if not (folder / name).is_dir()]


def scan(folder: Path, config: Config) -> Contents:
    """The images of the lists that are of the chosen classes.

    Raises:
        DataError: if a line is not as published, or a class has none.
    """
    paths = {part: folder / name for part, name in _LISTS.items()}
    found = {part: list(_lines(path)) for part, path in paths.items()}
    names = _chosen(config) or tuple(sorted({name for name, _ in found["train"]}))
    if config.class_list == "all" and len(names) != ALL:
        raise DataError(f"{paths['train']}: {len(names)} classes, not {ALL}")
    shape = Shape(config.size, config.resize)
    splits: dict[str, SplitSource] = {}
    for part, count in (("train", None), ("test", config.test_per_class)):
        pictures = list(_pictures(found[part], names))
        _check_classes(pictures, names, paths[part])
        chosen = first_pictures(pictures, count, where=paths[part])
        splits[part] = SplitSource.of_pictures(folder, chosen, shape)
    return Contents(splits["train"], splits["test"], names, watched=tuple(paths.values()))


def _chosen(config: Config) -> tuple[str, ...] | None:
    """The names of the classes, sorted; None for all."""
    if config.class_list == "all":
        return None
    listed = config.class_list
    return tuple(sorted(listed if isinstance(listed, tuple) else published(listed)))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Class and path of every image of a list; a class has one label, and a label one class."""
    label_of: dict[str, str] = {}
    class_of: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        relative, _, label = line.strip().partition(" ")
        parts = relative.split("/")
        if not line.strip():
            continue
        if len(parts) != 3 or parts[0] not in {"train", "val"} or ".." in parts:
            raise DataError(
                f"{path}: line {number}: {line[:60]!r} is no path and label of an image"
            )
        name = parts[1]
        if label_of.setdefault(name, label) != label or class_of.setdefault(label, name) != name:
            raise DataError(f"{path}: line {number}: class {name} and label {label} do not match")
        yield name, relative


def _pictures(found: list[tuple[str, str]], names: tuple[str, ...]) -> Iterator[Picture]:
    labels = {name: label for label, name in enumerate(names)}
    for name, relative in found:
        if name in labels:
            yield Picture(relative, labels[name])


def _check_classes(pictures: list[Picture], names: tuple[str, ...], path: Path) -> None:
    counts = Counter(picture.label for picture in pictures)
    absent = [name for label, name in enumerate(names) if not counts[label]]
    if absent:
        raise DataError(f"{path}: no image of class {absent[0]}")

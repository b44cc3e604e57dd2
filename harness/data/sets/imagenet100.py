"""ImageNet-100: 100 of the 1,000 classes of ILSVRC 2012, drawn with the trial's seed as in CLIMB.

Russakovsky et al., 2015, arXiv:1409.0575. The drawn order is the natural order of the classes
(github.com/lefebvju/climb, src/get_datasets.py), so a suite should say `class_order: natural`.
Test images are those of `val`. "exact" is the resizing of CLIMB, which does not keep the ratio of
the sides. Deviation: pixels are resized as bytes, CLIMB's as floats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from harness.data.base import DataError, Dataset, Split, Traits, first_whole
from harness.data.decode import Picture, Shape, decoded_split, first_pictures, picture_names

SOURCE = (
    "ILSVRC 2012 of https://image-net.org (registration needed), or any 100 of its classes, as "
    "ROOT/imagenet/train/<class>/*.JPEG and ROOT/imagenet/val/<class>/*.JPEG"
)

DEFAULT_SEED: Final = 42  # of CLIMB's released code; for `data prepare`, which has no trial
# ImageNet's usual constants, as in CLIMB's src/transforms.py.
TRAITS = Traits(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True)


_SORT: Final = (
    "each class needs one in train and in val, where the images of ILSVRC 2012 are to be sorted "
    "into folders"
)


@dataclass(frozen=True, slots=True)
class Config:
    # "sampled": drawn with list_seed; or the names of the folders, in their order
    class_list: Literal["sampled"] | tuple[str, ...] = "sampled"
    classes: int = 100  # how many to draw
    list_seed: int | None = None  # None: the trial's seed
    size: int = 224  # side of an image, in pixels
    resize: Literal["exact", "center_crop"] = "exact"
    per_class: int | None = None  # the first training images of each class; None: all
    test_per_class: int | None = None  # likewise of the test images

    def __post_init__(self) -> None:
        if min(self.classes, self.size) < 1:
            raise DataError("classes and size must be at least 1")
        if len(set(self.class_list)) < len(self.class_list) and self.class_list != "sampled":
            raise DataError("class_list names a class twice")


def num_classes(config: Config) -> int:
    return config.classes if config.class_list == "sampled" else len(config.class_list)


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def seeded(config: Config, seed: int) -> Config:
    """The settings with the trial's raw seed for the class list, unless they name one."""
    return replace(config, list_seed=seed) if config.list_seed is None else config


def load(config: Config, root: Path) -> Dataset:
    places = (root / "imagenet", root / "imagenet100")
    folder = first_whole("imagenet100", places, missing=_missing, source=SOURCE)
    names = _chosen(config, folder / "train")
    train = _split(folder / "train", names, config, root)
    test = _split(folder / "val", names, config, root)
    return Dataset("imagenet100", train, test, names, TRAITS)


def drawn(names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` of the sorted names in the order of CLIMB's draw; all of them, shuffled, if equal."""
    places = random.Random(seed).sample(range(len(names)), count)
    return tuple(names[place] for place in places)


def _missing(folder: Path) -> list[str]:
    return [name for name in ("train", "val") if not (folder / name).is_dir()]


def _chosen(config: Config, train: Path) -> tuple[str, ...]:
    if config.class_list != "sampled":
        return config.class_list
    folders = (entry for entry in train.iterdir() if entry.is_dir())
    names = sorted(folder.name for folder in folders if not folder.name.startswith("."))
    if len(names) < config.classes:
        raise DataError(
            f"{train}: {len(names)} folders of classes, but {config.classes} are to be drawn"
        )
    seed = DEFAULT_SEED if config.list_seed is None else config.list_seed
    return drawn(names, config.classes, seed)


def _split(folder: Path, names: tuple[str, ...], config: Config, root: Path) -> Split:
    is_train = folder.name == "train"
    pictures = [
        Picture(f"{name}/{file}", label)
        for label, name in enumerate(names)
        for file in picture_names(folder / name, absent=_SORT)
    ]
    count = config.per_class if is_train else config.test_per_class
    return decoded_split(
        folder,
        first_pictures(pictures, count, where=folder),
        Shape(config.size, config.resize),
        name=f"imagenet100-{folder.name}",
        root=root,
    )

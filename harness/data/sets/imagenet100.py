"""ImageNet-100: 100 of the 1,000 classes of ILSVRC 2012, drawn or from one of two published lists.

Russakovsky et al., 2015, arXiv:1409.0575. Classes that are drawn, with the trial's seed as in
CLIMB, keep the drawn order as their natural order (github.com/lefebvju/climb, src/get_datasets.py),
so a suite should say `class_order: natural`. Those of a published list are sorted. Test images are
those of `val`. "exact" is the resizing of CLIMB, which does not keep the ratio of the sides.
Deviation: pixels are resized as bytes, CLIMB's as floats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
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

_LISTS: Final = Path(__file__).parents[1] / "class_lists"
_SORT: Final = (
    "each class needs one in train and in val, where the images of ILSVRC 2012 are to be sorted "
    "into folders"
)


@dataclass(frozen=True, slots=True)
class Config:
    # "sampled": drawn with list_seed; a published list; or the names of the folders, in their order
    class_list: Literal["sampled", "pycil", "douillard"] | tuple[str, ...] = "sampled"
    classes: int = 100  # how many to draw; a list has its own number
    list_seed: int | None = None  # None: the trial's seed
    size: int = 224  # side of an image, in pixels
    resize: Literal["exact", "center_crop"] = "exact"
    per_class: int | None = None  # the first training images of each class; None: all
    test_per_class: int | None = None  # likewise of the test images

    def __post_init__(self) -> None:
        if min(self.classes, self.size) < 1:
            raise DataError("classes and size must be at least 1")
        names = self.class_list if isinstance(self.class_list, tuple) else ()
        if len(set(names)) < len(names):
            raise DataError("class_list names a class twice")


def num_classes(config: Config) -> int:
    listed = _listed(config)
    return config.classes if listed is None else len(listed)


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def seeded(config: Config, seed: int) -> Config:
    """The settings with the trial's raw seed for the classes to draw, unless they name one."""
    drawn_by_trial = config.class_list == "sampled" and config.list_seed is None
    return replace(config, list_seed=seed) if drawn_by_trial else config


def load(config: Config, root: Path) -> Dataset:
    places = (root / "imagenet", root / "imagenet100")
    folder = first_whole("imagenet100", places, missing=_missing, source=SOURCE)
    for part in ("train", "val"):  # before hours of decoding
        if not _classes(folder / part):  # as in ILSVRC's archive of the validation images
            raise DataError(f"{folder / part}: holds no folders of classes; {_SORT}")
    names = _chosen(config, folder / "train")
    train = _split(folder / "train", names, config, root)
    test = _split(folder / "val", names, config, root)
    return Dataset("imagenet100", train, test, names, TRAITS)


def drawn(names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` of the sorted names in the order of CLIMB's draw; all of them, shuffled, if equal."""
    places = random.Random(seed).sample(range(len(names)), count)
    return tuple(names[place] for place in places)


@cache
def published(name: Literal["pycil", "douillard"]) -> tuple[str, ...]:
    """The 100 classes of a published list, sorted.

    "pycil" is the "ImageNet-Subset" of PyCIL and FOSTER (github.com/G-U-N/ECCV22-FOSTER,
    imagenet-sub/train.txt): of all 1,000 classes, sorted, the first 100 in the order
    RandomState(1993).permutation(1000). They have 128,856 training images, as many as the
    ImageNet-100 of BrainCL (arXiv:2504.14727), which does not list its classes. "douillard" is the
    first 100 of the sorted 1,000 (github.com/arthurdouillard/incremental_learning.pytorch,
    imagenet_split/val_100.txt).
    """
    return tuple((_LISTS / f"imagenet100_{name}.txt").read_text(encoding="utf-8").split())


def _listed(config: Config) -> tuple[str, ...] | None:
    """The classes in the order of their labels; None if they are to be drawn."""
    if isinstance(config.class_list, tuple):
        return config.class_list
    return None if config.class_list == "sampled" else published(config.class_list)


def _missing(folder: Path) -> list[str]:
    return [name for name in ("train", "val") if not (folder / name).is_dir()]


def _classes(folder: Path) -> list[str]:
    folders = (entry for entry in folder.iterdir() if entry.is_dir())
    return sorted(folder.name for folder in folders if not folder.name.startswith("."))


def _chosen(config: Config, train: Path) -> tuple[str, ...]:
    listed = _listed(config)
    if listed is not None:
        return listed
    names = _classes(train)
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

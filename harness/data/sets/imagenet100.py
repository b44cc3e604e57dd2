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

from harness.data.base import DataError, Traits
from harness.data.decoder import Shape
from harness.data.official import Official
from harness.data.source import Contents, Picture, SplitSource, first_pictures, picture_names

SOURCE = (
    "ILSVRC 2012 of https://image-net.org (registration needed), or any 100 of its classes, as "
    "ROOT/imagenet/train/<class>/*.JPEG and ROOT/imagenet/val/<class>/*.JPEG"
)

DEFAULT_SEED: Final = 42  # of CLIMB's released code; for `data prepare`, which has no trial
# ImageNet's usual constants, as in CLIMB's src/transforms.py.
TRAITS = Traits(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), flip=True)

MD5: Final = {
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
}
"""Of the official archives (torchvision/datasets/imagenet.py)."""

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
    skip_corrupt: bool = False  # leave out pictures that cannot be decoded

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


def traits(config: Config) -> Traits:
    del config
    return TRAITS


def official(config: Config) -> Official:
    published = _counts() if config.class_list == "pycil" else None
    return Official(
        licence="for research and teaching, not commercial (image-net.org)",
        size="156 GB (ILSVRC 2012, 1,000 classes); prepared 20 GB at 224 pixels",
        train=published if config.per_class is None else config.per_class,
        test=50 if config.test_per_class is None else config.test_per_class,
        md5=MD5,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "imagenet", root / "imagenet100"


def missing(folder: Path, config: Config) -> list[str]:
    del config
    return [name for name in ("train", "val") if not (folder / name).is_dir()]


def scan(folder: Path, config: Config) -> Contents:
    """The chosen classes.

    Raises:
        DataError: if one is not there, or the images of val are not in folders of classes.
    """
    parts = folder / "train", folder / "val"
    for part in parts:
        if not class_folders(part):  # as in ILSVRC's archive of the validation images
            raise DataError(f"{part}: holds no folders of classes; {_SORT}")
    names = _chosen(config, folder / "train")
    counts = config.per_class, config.test_per_class
    train, test = (
        _split(part, names, count, config) for part, count in zip(parts, counts, strict=True)
    )
    return Contents(train, test, names, watched=parts)


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


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are passed over."""
    folders = (entry for entry in folder.iterdir() if entry.is_dir())
    return sorted(entry.name for entry in folders if not entry.name.startswith("."))


def _chosen(config: Config, train: Path) -> tuple[str, ...]:
    listed = _listed(config)
    if listed is not None:
        return listed
    names = class_folders(train)
    if len(names) < config.classes:
        raise DataError(
            f"{train}: {len(names)} folders of classes, but {config.classes} are to be drawn"
        )
    seed = DEFAULT_SEED if config.list_seed is None else config.list_seed
    return drawn(names, config.classes, seed)


def _split(folder: Path, names: tuple[str, ...], count: int | None, config: Config) -> SplitSource:
    pictures = [
        Picture(f"{name}/{file}", label)
        for label, name in enumerate(names)
        for file in picture_names(folder / name, absent=_SORT)
    ]
    chosen = first_pictures(pictures, count, where=folder)
    return SplitSource.of_pictures(folder, chosen, Shape(config.size, config.resize))


@cache
def _counts() -> tuple[int, ...]:
    """Training images of each class of "pycil" (imagenet-sub/train.txt, counted)."""
    return tuple(map(int, (_LISTS / "imagenet100_pycil_counts.txt").read_text().split()))

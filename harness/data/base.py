"""A data set is two splits of uint8 images and what augmentation has to know about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError


class DataError(UserError):
    """A data set is missing, incomplete or damaged; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Split:
    """uint8 images and their labels, int64 (N,) on the device of a trial.

    `x` (M, C, H, W) lies on that device, or stays in the CPU's memory, often mapped from a file.
    `images` gives those that are asked for, wherever they lie.

    `domain` (N,), int64 on the CPU, says which domain each image belongs to, counted from 0 in
    their order; `session` likewise which video it is a frame of, by any numbers. None in a set
    without them. `place` (N,), int64 on the CPU, is the row of each image in `x`; None: its own.
    """

    x: Tensor
    y: Tensor
    domain: Tensor | None = None
    session: Tensor | None = None
    place: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def images(self, rows: Tensor) -> Tensor:
        """The images (len(rows), C, H, W) of these rows of the split, on the trial's device."""
        rows = rows if self.place is None else self.place[rows.cpu()]
        return self.x[rows.to(self.x.device)].to(self.y.device)

    def only(self, rows: Tensor) -> Split:
        """A split of these rows, int64 on the CPU, in their order; no image is copied."""
        place = rows if self.place is None else self.place[rows]
        domain, session = (
            None if of_row is None else of_row[rows] for of_row in (self.domain, self.session)
        )
        return Split(self.x, self.y[rows.to(self.y.device)], domain, session, place)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a data set declares about its images.

    `mean` and `std` (one value a channel, of pixels scaled to [0, 1]) normalise them; `flip` says
    whether a mirrored image keeps its class; `crop_padding` is the border in pixels of the random
    crop, 0 for none, and `crop_mode` how the border is filled ("constant" or "reflect").
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    crop_padding: int = 0
    crop_mode: str = "constant"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labels run from 0 to `num_classes` - 1 in the data set's own (natural) order.

    `origin` says what the images were made from, for the record of a trial.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    traits: Traits
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W) scaled to [0, 1].

    Counted in grey levels, so the result does not depend on threads or on the order of images.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    channels = x.flatten(2).unbind(1)
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in channels]).double()
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(1)
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


def first_of_each_class(split: Split, count: int | None) -> Split:
    """The first `count` images of each class, in the order of the split; None keeps all."""
    if count is None:
        return split
    sizes = split.y.bincount()
    if count < 1 or count > int(sizes.min()):
        raise DataError(f"{count} images a class were asked for; there are 1 to {int(sizes.min())}")
    by_class = split.y.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    rows = by_class[(starts[:, None] + torch.arange(count)).flatten()].sort().values
    domain = None if split.domain is None else split.domain[rows]
    return Split(split.x[rows], split.y[rows], domain)


def check_labels(split: Split, num_classes: int, *, where: Path) -> None:
    """Labels must run from 0 to num_classes - 1, and each class have an image.

    Raises:
        DataError: naming `where` the labels come from.
    """
    if len(split) and not 0 <= int(split.y.min()) <= int(split.y.max()) < num_classes:
        low, high = int(split.y.min()), int(split.y.max())
        raise DataError(
            f"{where}: labels from {low} to {high}, but classes run from 0 to {num_classes - 1}"
        )
    absent = (split.y.bincount(minlength=num_classes) == 0).nonzero()[:, 0].tolist()
    if absent:
        raise DataError(f"{where}: no image of class {', '.join(map(str, absent))}")


def first_whole(
    name: str, places: Sequence[Path], *, missing: Callable[[Path], list[str]], source: str
) -> Path:
    """The first of `places` that has all of a data set.

    Args:
        name: Of the data set.
        places: Folders to look into.
        missing: What a folder lacks.
        source: How to get the data set, and what is expected where.

    Raises:
        DataError: if there is none, with what each of them lacks.
    """
    lacking = {place: missing(place) for place in places}
    for place, names in lacking.items():
        if not names:
            return place
    looked = "".join(
        f"\n  {place}: " + (f"lacks {', '.join(names)}" if place.is_dir() else "no such folder")
        for place, names in lacking.items()
    )
    raise DataError(f"{name} was not found. Looked in:{looked}\nTo get it: {source}.")

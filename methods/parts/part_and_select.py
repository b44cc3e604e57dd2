"""Which points of a cloud to keep so that they cover it: boxes are halved until there are enough.

The Part and Select Algorithm (Salomon, Avigad, Goldvard and Schütze, 2013, "PSA - a new scalable
space partition based selection algorithm for MOEAs"), as SCALE chooses its memory with it (Yu et
al., 2022, arXiv:2208.11266; github.com/Orienfish/SCALE). Deviations: where there are fewer distinct
points than asked for, which stops the released code, the rest is drawn at random; points that are
not finite are drawn only then; of points equally near a centre the first is taken.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Points = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


class _Box(NamedTuple):
    """Some of the points; boxes compare in the order in which they are split."""

    negative_extent: float
    born: int  # all different, so that rows are never compared
    dim: int  # the first of the widest
    middle: float  # of that dimension
    rows: Rows


def part_and_select(z: npt.ArrayLike, count: int, *, rng: torch.Generator) -> Tensor:
    """Rows of points that cover them all: int64, different, ascending.

    Args:
        z: an array, or a tensor on the CPU, of shape (N, D); compared as float32.
        count: how many to select; all N, if there are no more.
        rng: drawn from only where fewer than `count` points are finite and different.

    Raises:
        ValueError: if `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"at least 1 point has to be selected, not {count}")
    points = np.asarray(z, dtype=np.float32)
    if len(points) <= count:
        return torch.arange(len(points))
    kept = [_central(points, rows) for rows in _parts(points, count)]
    chosen = torch.zeros(len(points), dtype=torch.bool)
    chosen[kept] = True
    if len(kept) < count:
        others = (~chosen).nonzero().flatten()
        chosen[others[torch.randperm(len(others), generator=rng)[: count - len(kept)]]] = True
    return chosen.nonzero().flatten()


def _parts(points: Points, count: int) -> list[Rows]:
    """At most `count` boxes that hold all finite points, by their rows; none is empty."""
    finite = np.flatnonzero(np.isfinite(points).all(1))
    if not len(finite):
        return []
    boxes = [_box(points, finite, 0)]
    while len(boxes) < count and boxes[0].negative_extent < 0:
        widest = heapq.heappop(boxes)
        # In float64 the middle of two different numbers in float32 lies between them.
        lower = points[widest.rows, widest.dim].astype(np.float64) < widest.middle
        halves = (widest.rows[lower], widest.rows[~lower])
        for born, half in enumerate(halves, start=2 * len(boxes)):
            heapq.heappush(boxes, _box(points, half, born))
    return [box.rows for box in boxes]


def _box(points: Points, rows: Rows, born: int) -> _Box:
    """The smallest box around these rows, at least one."""
    if len(rows) == 1:  # as most boxes end where nearly all points are kept
        return _Box(0.0, born, 0, 0.0, rows)
    low, high = _sides(points, rows)
    extents = high - low
    dim = int(extents.argmax())
    return _Box(-float(extents[dim]), born, dim, float(low[dim] + high[dim]) / 2, rows)


def _sides(points: Points, rows: Rows) -> tuple[Exact, Exact]:
    """The smallest and the largest coordinates (D,) of these rows."""
    inside = points[rows]
    return inside.min(0).astype(np.float64), inside.max(0).astype(np.float64)


def _central(points: Points, rows: Rows) -> int:
    """The row closest to the middle of the box around these rows (not to their mean)."""
    if len(rows) == 1:
        return int(rows[0])
    low, high = _sides(points, rows)
    # Twice the distance, which is exact for two points: they are equally far, whatever rounding.
    offsets = 2 * points[rows].astype(np.float64) - (low + high)
    return int(rows[np.square(offsets).sum(1).argmin()])

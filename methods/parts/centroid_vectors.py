"""The arithmetic of CLIMB's centroids: cosine distances, merges, and the drift of replay.

A batch is added image by image, each decision hanging on the one before, so this runs on the host:
one transfer there and one back for a batch, and not one for an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@final
class Vectors:
    """Centroids on the host while a batch is added: (N, D), of which `live` marks those in use.

    Distances are cosine distances. One that is not a number (an embedding that diverged, or has no
    direction) counts as infinite.
    """

    def __init__(self, values: Floats, live: NDArray[np.bool_]) -> None:
        self.values = values
        self._live = live
        self._norms = _norms(values)

    def distances(self, z: Floats) -> Floats:
        """From an embedding (D,) to every centroid, (N,); infinite where none is in use."""
        with np.errstate(all="ignore"):
            # Not BLAS: each row's sum is the same whatever the number of threads and rows.
            products = np.einsum("nd,d->n", self.values, z)
            found = 1 - products / (self._norms * _norms(z[None]))
        return np.where(self._live & ~np.isnan(found), found, np.float32(np.inf))

    def write(self, row: int, value: Floats) -> None:
        """Put a centroid (D,) in a row."""
        self.values[row] = value
        self._norms[row] = _norms(self.values[row : row + 1])[0]
        self._live[row] = True

    def drop(self, row: int) -> None:
        """Use a row no more."""
        self._live[row] = False

    def pull(self, row: int, z: Floats, rate: float) -> None:
        """Move a centroid towards `z` by `rate` of the way."""
        with np.errstate(all="ignore"):
            self.write(row, np.float32(1 - rate) * self.values[row] + np.float32(rate) * z)

    def closest_pair(self, first: int, last: int) -> tuple[int, int]:
        """The two most similar of the rows from `first` to before `last`, the smaller first."""
        with np.errstate(all="ignore"):
            unit = self.values[first:last] / self._norms[first:last, None]
            similarity = unit @ unit.T
        one, other = np.triu_indices(last - first, k=1)
        pairs = similarity[one, other]
        best = int(np.where(np.isnan(pairs), -np.inf, pairs).argmax())
        return first + int(one[best]), first + int(other[best])

    def merge(self, one: int, other: int, last: int) -> None:
        """Put the mean of two centroids in row `one`; those after `other` move up, to `last`."""
        with np.errstate(all="ignore"):
            self.write(one, (self.values[one] + self.values[other]) / 2)
        self.values[other : last - 1] = self.values[other + 1 : last]
        self._norms[other : last - 1] = self._norms[other + 1 : last]
        self.drop(last - 1)


def drift_plan(owners: Sequence[int], rates: Sequence[float], centroids: int) -> Floats:
    """What moving centroid owners[i] towards z[i] by rates[i], for i = 0, 1, ..., comes to.

    Returns:
        (N, 1 + B): column 0 is what remains of each centroid, column 1 + i what it takes of z[i].
        A chain of steps c <- (1 - a) c + a z keeps of each z its rate times the product of 1 - a
        over the later steps of the same centroid.
    """
    plan = np.zeros((centroids, 1 + len(owners)))
    plan[:, 0] = 1
    for i in reversed(range(len(owners))):
        plan[owners[i], 1 + i] = rates[i] * plan[owners[i], 0]
        plan[owners[i], 0] *= 1 - rates[i]
    return plan.astype(np.float32)


def _norms(values: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return np.sqrt(np.einsum("nd,nd->n", values, values))

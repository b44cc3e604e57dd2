"""A memory that drops, of its two most similar images, the older one.

MinRed (Purushwalkam et al., 2022, arXiv:2203.12710), as CLA released it (Cignoni et al., CoLLAs
2025; github.com/giacomo-cgn/ocl-self-supervised): before a batch enters a full buffer, rows are
removed from what was there, one after the other, each time one with the smallest cosine distance to
its nearest neighbour among those left. Both rows of the closest pair have that distance: the older
goes. Deviation: features are compared anew only where they changed.

The paper's own code (github.com/senthilps8/continuous_ssl_problem) removes the row with the largest
(cos + 1) / 2, which is the same row, but normalises features whenever it stores them, lets a batch
enter before it removes, takes as candidates only images that were trained on, and removes the
oldest while fewer than twice the number to remove have been. Here the candidates are all rows but
the new batch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor

from methods.parts.transfers import sent

# Ranks beside the cosines, which lie in [-1, 1].
_GONE: Final = -torch.inf
_LONELY: Final = -2.0
_BROKEN: Final = 2.0
_EPS: Final = 1e-8  # shortest norm that is divided by; torch.nn.functional.cosine_similarity


@final
class MinRedBuffer:
    """Images and their features, in place; rows are chosen on the device without waiting for it.

    From the first removal on it holds the similarities (capacity, capacity) of all rows. They are
    state, saved and counted: a product computed again among other rows may round differently.
    """

    kind = "exemplars"

    def __init__(self, capacity: int, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"a buffer needs room for at least 1 image, got {capacity}")
        self.capacity = capacity
        self.device = device
        self.seen = 0
        self._columns: dict[str, Tensor] = {}
        self._similarity: Tensor | None = None
        self._changed = 0  # how many rows of the column `stale` are true, at most

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows filled, and of the similarities once there are any."""
        return sum(tensor.nbytes for tensor in self._filled().values())

    def add(self, *, x: Tensor, z: Tensor) -> None:
        """Store images (B, ...) and features (B, D); of more than the capacity, the last.

        The first of a batch counts as its oldest.
        """
        number = torch.arange(self.seen, self.seen + len(x), device=self.device)
        batch = {"x": x, "z": z, "number": number, "stale": torch.ones_like(number).bool()}
        incoming = min(len(x), self.capacity)
        rows = self._make_room(incoming)
        for name, values in batch.items():
            if name not in self._columns:
                self._columns[name] = self._empty(values)
            self._columns[name][rows] = values[len(x) - incoming :].to(self.device)
        self.seen += len(x)
        self._changed += incoming

    def draw(self, size: int, rng: torch.Generator) -> Tensor:
        """Numbers of at most `size` different rows, each equally likely; int64 on the device."""
        return sent(torch.randperm(len(self), generator=rng)[:size], self.device)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """A copy of the images `x` and features `z` of these rows."""
        return {name: self._columns[name][rows] for name in ("x", "z")}

    def put(self, rows: Tensor, *, z: Tensor) -> None:
        """Write features anew in rows that are all different."""
        self._columns["z"][rows] = z
        self._columns["stale"][rows] = True
        self._changed += len(rows)

    def sample(self, size: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Images and features of at most `size` different rows, each equally likely."""
        return self.take(self.draw(size, rng))

    def state_dict(self) -> dict[str, Any]:
        filled = {name: tensor.clone() for name, tensor in self._filled().items()}
        return {"seen": self.seen, "changed": self._changed, "filled": filled}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.seen = state_dict["seen"]
        self._changed = state_dict["changed"]
        # A checkpoint comes back on the CPU, whichever device it was written from.
        filled = {name: t.to(self.device, copy=True) for name, t in state_dict["filled"].items()}
        self._similarity = filled.pop("similarity", None)
        self._columns = {}
        for name, values in filled.items():
            self._columns[name] = self._empty(values)
            self._columns[name][: len(values)] = values

    def _filled(self) -> dict[str, Tensor]:
        """Views of everything held."""
        filled = {name: column[: len(self)] for name, column in self._columns.items()}
        return filled if self._similarity is None else {**filled, "similarity": self._similarity}

    def _empty(self, values: Tensor) -> Tensor:
        """Room for `capacity` rows like those of `values`."""
        return values.new_zeros((self.capacity, *values.shape[1:]), device=self.device)

    def _make_room(self, incoming: int) -> Tensor:
        """Rows for a batch: those that had to go for it, then the unused ones."""
        held = len(self)
        unused = torch.arange(held, min(held + incoming, self.capacity), device=self.device)
        excess = held + incoming - self.capacity
        if excess <= 0:
            return unused
        similarity = self._compared()[:held, :held]
        gone = _remove(similarity, self._columns["number"][:held], excess)
        return torch.cat([gone, unused])

    def _compared(self) -> Tensor:
        """The similarities of all rows, brought up to date where features have changed."""
        held = len(self)
        z, stale = self._columns["z"][:held], self._columns["stale"][:held]
        if self._similarity is None:
            self._similarity = z.new_zeros((self.capacity, self.capacity))
        # The stale rows and a few others: how many there are exactly, only the device knows.
        rows = stale.argsort(descending=True, stable=True)[: min(self._changed, held)]
        fresh = _similarities(z, rows)
        self._similarity[rows, :held] = fresh
        self._similarity[:held, rows] = fresh.T
        stale.fill_(value=False)
        self._changed = 0
        return self._similarity


def _similarities(z: Tensor, rows: Tensor) -> Tensor:
    """Cosines (R, N) of these rows of features (N, D) with all, the same from either side.

    A row is no neighbour of itself, nor of a row that is not finite. Such a row itself ranks above
    every pair, so that what a diverged network left behind is removed first, the oldest before.
    """
    norms = torch.linalg.vector_norm(z, dim=1)
    lengths = norms.clamp_min(_EPS)
    cosines = (z[rows] @ z.T).div_(lengths[rows, None]).div_(lengths)
    among = cosines[:, rows]
    cosines[:, rows] = (among + among.T) / 2
    cosines = torch.where(cosines.isfinite(), cosines, _LONELY)
    own = torch.full_like(norms, _LONELY).masked_fill_(~norms.isfinite(), _BROKEN)
    return cosines.scatter_(1, rows[:, None], own[rows, None])


def _remove(similarity: Tensor, number: Tensor, count: int) -> Tensor:
    """Take `count` rows out of (N, N) similarities, in place; which they were, one by one.

    Each is the oldest, by `number` (N,), of those with the most similar neighbour.
    """
    youngest = torch.iinfo(number.dtype).max
    gone: list[Tensor] = []
    for _ in range(count):
        nearest = similarity.amax(1)
        row = torch.where(nearest == nearest.amax(), number, youngest).argmin(0, keepdim=True)
        similarity.index_fill_(0, row, _GONE).index_fill_(1, row, _GONE)
        gone.append(row)
    return torch.cat(gone)

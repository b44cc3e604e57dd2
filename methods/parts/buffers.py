"""Fixed-capacity tensor storage, with the choice of slots left to a policy.

Slots and draws are decided on the host, from the trial's CPU generators, and only rows move on the
device: adding or sampling a batch costs one gather or scatter and no synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from methods.parts.transfers import sent

SlotPolicy = Callable[[int, int, int, torch.Generator], Tensor]
"""(seen, incoming, capacity, rng) -> int64 slots of shape (incoming,), -1 for 'drop it'."""


def reservoir(seen: int, incoming: int, capacity: int, rng: torch.Generator) -> Tensor:
    """Slots so that every item seen is kept with equal probability (Vitter, 1985, Algorithm R)."""
    position = torch.arange(seen, seen + incoming)
    draw = (torch.rand(incoming, generator=rng, dtype=torch.float64) * (position + 1)).long()
    return torch.where(position < capacity, position, torch.where(draw < capacity, draw, -1))


def fifo(seen: int, incoming: int, capacity: int, rng: torch.Generator) -> Tensor:
    """Slots that overwrite the oldest items."""
    del rng
    return torch.arange(seen, seen + incoming) % capacity


@final
class Buffer:
    """Named columns of equal length; rows are written where the policy says.

    The images it keeps count as `exemplars` in `Method.memory`.
    """

    kind = "exemplars"

    def __init__(
        self, capacity: int, policy: SlotPolicy, rng: torch.Generator, device: torch.device
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a buffer needs room for at least 1 image, got {capacity}")
        self.capacity = capacity
        self.policy = policy
        self.rng = rng
        self.device = device
        self.seen = 0
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows filled, the currency in which methods are compared."""
        return sum(column[: len(self)].nbytes for column in self._columns.values())

    def add(self, **columns: Tensor) -> None:
        """Offer a batch, given as columns of shape (B, ...), to the policy.

        Raises:
            ValueError: if the columns are not those of the first batch.
        """
        if self._columns and columns.keys() != self._columns.keys():
            raise ValueError(f"columns {[*columns]} in a buffer of {[*self._columns]}")
        incoming = len(next(iter(columns.values())))
        slots = self.policy(self.seen, incoming, self.capacity, self.rng)
        self.seen += incoming
        # Two rows of a batch may draw one slot: the later wins, as if they had come one by one.
        winners = {slot: row for row, slot in enumerate(slots.tolist()) if slot >= 0}
        if not winners:
            return
        to = torch.tensor(list(winners))
        rows = torch.tensor(list(winners.values()))
        for name, values in columns.items():
            if name not in self._columns:
                self._columns[name] = self._empty(values)
            column = self._columns[name]
            column[sent(to, column.device)] = values[sent(rows, values.device)]

    def draw(self, size: int, rng: torch.Generator) -> Tensor:
        """Numbers of at most `size` different rows, each equally likely; int64 on the device."""
        return sent(torch.randperm(len(self), generator=rng)[:size], self.device)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """A copy of these rows, as columns."""
        return {name: column[rows] for name, column in self._columns.items()}

    def put(self, rows: Tensor, **columns: Tensor) -> None:
        """Write columns anew in rows that are all different."""
        for name, values in columns.items():
            self._columns[name][rows] = values

    def sample(self, size: int, rng: torch.Generator) -> dict[str, Tensor]:
        """At most `size` different rows, each equally likely, as columns."""
        return self.take(self.draw(size, rng))

    def everything(self) -> dict[str, Tensor]:
        """All rows, as columns; what they show changes with the buffer."""
        return {name: column[: len(self)] for name, column in self._columns.items()}

    def refill(self, **columns: Tensor) -> None:
        """Hold these rows and nothing else.

        Raises:
            ValueError: if they are more than `capacity`.
        """
        count = len(next(iter(columns.values())))
        if count > self.capacity:
            raise ValueError(f"{count} rows in a buffer of {self.capacity}")
        refilled: dict[str, Tensor] = {}
        for name, values in columns.items():
            kept = self._columns.get(name)
            refilled[name] = self._empty(values) if kept is None else kept
            refilled[name][:count] = values
        self.seen, self._columns = count, refilled

    def state_dict(self) -> dict[str, Any]:
        filled = {name: column[: len(self)].clone() for name, column in self._columns.items()}
        return {"seen": self.seen, "columns": filled}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.seen = state_dict["seen"]
        self._columns = {}
        for name, filled in state_dict["columns"].items():
            # A checkpoint comes back on the CPU, whichever device it was written from.
            self._columns[name] = self._empty(filled)
            self._columns[name][: len(filled)] = filled.to(self.device)

    def _empty(self, values: Tensor) -> Tensor:
        """Room for `capacity` rows like those of `values`."""
        return values.new_zeros((self.capacity, *values.shape[1:]), device=self.device)

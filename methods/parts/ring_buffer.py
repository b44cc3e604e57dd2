"""A memory with equal room for every task, in which the newest images of a task stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from methods.parts.transfers import sent


@final
class RingBuffer:
    """Labelled images: for each task a ring of `capacity` // `num_tasks` places.

    The ring of a task begins behind the images of those before it, so that the rows filled are
    always the first ones, also where a task had fewer images than places.
    """

    kind = "exemplars"

    def __init__(self, capacity: int, num_tasks: int, device: torch.device) -> None:
        if capacity < num_tasks:
            raise ValueError(f"no room for an image of each of {num_tasks} tasks in {capacity}")
        self.portion = capacity // num_tasks
        self.device = device
        self._rows = self.portion * num_tasks
        self._start = 0
        self._seen = 0
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self._start + min(self._seen, self.portion)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows filled."""
        return sum(column[: len(self)].nbytes for column in self._columns.values())

    def begin_task(self) -> None:
        """Leave what is held as it is, and begin the next ring."""
        self._start, self._seen = len(self), 0

    def add(self, *, x: Tensor, y: Tensor) -> None:
        """Write raw images (B, C, H, W) and labels (B,) over the oldest ones of the task."""
        skipped = max(len(x) - self.portion, 0)  # overwritten by the rest of the same batch
        places = torch.arange(self._seen + skipped, self._seen + len(x)) % self.portion
        slots = sent(self._start + places, self.device)
        for name, values in {"x": x, "y": y}.items():
            if name not in self._columns:
                self._columns[name] = self._empty(values)
            self._columns[name][slots] = values[skipped:]
        self._seen += len(x)

    def sample(self, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and labels of at most `size` different rows, each equally likely."""
        rows = sent(torch.randperm(len(self), generator=rng)[:size], self.device)
        return self._columns["x"][rows], self._columns["y"][rows]

    def everything(self) -> tuple[Tensor, Tensor]:
        """All images and labels, task by task; what they show changes with the buffer."""
        return self._columns["x"][: len(self)], self._columns["y"][: len(self)]

    def state_dict(self) -> dict[str, Any]:
        filled = {name: column[: len(self)].clone() for name, column in self._columns.items()}
        return {"start": self._start, "seen": self._seen, "columns": filled}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._start, self._seen = state_dict["start"], state_dict["seen"]
        self._columns = {}
        for name, filled in state_dict["columns"].items():
            self._columns[name] = self._empty(filled)
            self._columns[name][: len(filled)] = filled.to(self.device)

    def _empty(self, values: Tensor) -> Tensor:
        """Room for all tasks' rows like those of `values`."""
        return values.new_zeros((self._rows, *values.shape[1:]), device=self.device)

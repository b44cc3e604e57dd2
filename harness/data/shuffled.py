"""The stream of upper references: images of all tasks, shuffled again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from harness.data.base import Split
from harness.data.residency import in_turn
from harness.data.stream import Tally, revealed
from harness.seeds import generator
from methods.base import Batch, Signal


@final
@dataclass(frozen=True, slots=True)
class ShuffledBatches:
    """Batches `first` to `stop` - 1 of an endless stream over `rows` of `split`.

    The stream is the rows in one random order after another, cut into batches of `size` images;
    the n-th order depends on the seed and n alone, so that any part of it can be drawn by itself.
    `epochs` and `milestones` are those of the tasks that it takes the place of.
    """

    split: Split
    rows: Tensor
    size: int
    first: int
    stop: int
    reveal: frozenset[Signal]
    position: int
    seed: int
    tally: Tally
    epochs: int = 1
    milestones: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[Batch]:
        order = self._order()
        for rows, x in in_turn(self.split, order, range(self.size, len(order), self.size)):
            self.tally.samples += len(rows)
            yield revealed(self.split, rows, x, reveal=self.reveal, position=self.position)

    def _order(self) -> Tensor:
        begin, end = self.first * self.size, self.stop * self.size
        total = len(self.rows)
        orders = [self._shuffle(n) for n in range(begin // total, -(-end // total))]
        skipped = begin // total * total
        return torch.cat(orders)[begin - skipped : end - skipped]

    def _shuffle(self, number: int) -> Tensor:
        rng = generator(self.seed, "iid-order", number)
        return self.rows[torch.randperm(len(self.rows), generator=rng)]


def part(counts: Sequence[int], position: int) -> tuple[int, int]:
    """First and one past the last batch of an equal part, when tasks have `counts` batches."""
    total, parts = sum(counts), len(counts)
    return total * position // parts, total * (position + 1) // parts

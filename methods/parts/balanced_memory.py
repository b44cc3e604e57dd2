"""A memory that is refilled at the end of every task, with equal shares for classes or tasks.

At the end of a task, with `random_of_each` or `herded_of_each` of `methods.parts.exemplars`::

    share = memory.capacity // task.classes.stop
    rows = random_of_each(labels, share, rng)
    memory.renew({"x": task.data.x[rows], "y": labels[rows]}, by="y", keep=share)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from methods.parts.buffers import Buffer, fifo
from methods.parts.exemplars import first_of_each
from methods.parts.transfers import sent


@final
class BalancedMemory:
    """Named columns of at most `capacity` rows; rows leave only when `renew` says so.

    The images it keeps count as `exemplars` in `Method.memory`.
    """

    kind = "exemplars"

    def __init__(self, capacity: int, device: torch.device) -> None:
        # Always refilled as a whole: the policy, and with it the generator, are never asked.
        self._buffer = Buffer(capacity, fifo, torch.Generator(), device)

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def capacity(self) -> int:
        return self._buffer.capacity

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes

    def renew(self, new: Mapping[str, Tensor], *, by: str, keep: int) -> None:
        """Keep the first `keep` rows of every group, and put the new rows behind them.

        Which rows come first never changes within a group, so that a group always holds the rows
        that were chosen best (or a random part of those chosen at random). Those kept stand in
        the order of their groups. For the end of a task; it may synchronise.

        Args:
            new: columns of equal length, already cut to their share; the same names every time.
            by: the column that says the group, "y" or "task".
            keep: rows of each group that is in the memory already.

        Raises:
            ValueError: if the rows are more than `capacity`.
        """
        if not len(self):
            self._buffer.refill(**new)
            return
        rows = first_of_each(self._buffer.everything()[by], keep)
        kept = self._buffer.take(sent(rows, self._buffer.device))
        joined = {name: torch.cat([held, new[name].to(held.device)]) for name, held in kept.items()}
        self._buffer.refill(**joined)

    def sample(self, size: int, rng: torch.Generator) -> dict[str, Tensor]:
        """At most `size` different rows, each equally likely, as columns."""
        return self._buffer.sample(size, rng)

    def everything(self) -> dict[str, Tensor]:
        """All rows, as columns; what they show changes with the memory."""
        return self._buffer.everything()

    def state_dict(self) -> dict[str, Any]:
        return self._buffer.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._buffer.load_state_dict(state_dict)


def evenly_of_each(groups: Tensor, total: int, rng: torch.Generator) -> Tensor:
    """`total` random rows, as many of one group as of another, in random order.

    What does not divide goes to random groups, one row each; what a small group lacks is taken
    from the others.

    Args:
        groups: int64 (N,), a class for each row.
        total: of all groups together; all rows if there are fewer.
        rng: of the CPU.

    Returns:
        Row numbers, int64 on the CPU; the first n of them are as even as all, for every n.
    """
    groups = groups.cpu()
    order = torch.randperm(len(groups), generator=rng)
    turn = torch.empty(len(groups), dtype=torch.int64)  # of a row among those of its group
    for group in groups.unique():
        rows = order[groups[order] == group]
        turn[rows] = torch.arange(len(rows))
    # A stable sort: within a turn the rows stay in random order.
    return order[turn[order].argsort(stable=True)][:total]

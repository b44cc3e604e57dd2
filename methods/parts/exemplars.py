"""Which images of a task are kept at its end: so many of every class, at random or by herding.

All functions give row numbers, int64 on the CPU, class by class in ascending order of the labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Choice = Callable[[Tensor], Tensor]
"""Row numbers (N,) of a class to the same rows, the best first."""


def first_of_each(groups: Tensor, count: int) -> Tensor:
    """The first `count` rows of each group, in the order in which they stand.

    Args:
        groups: int64 (N,), a class or a task for each row.
        count: of every group; all of it if it has fewer.
    """
    return best_of_each(groups, count, lambda rows: rows)


def random_of_each(groups: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """`count` random rows of each group (see `first_of_each`), in random order."""
    return best_of_each(groups, count, lambda rows: rows[torch.randperm(len(rows), generator=rng)])


def herded_of_each(groups: Tensor, count: int, features: Tensor) -> Tensor:
    """The `count` rows of each group that herding chooses first, in its order.

    Args:
        groups: int64 (N,).
        count: of every group; all of it if it has fewer.
        features: (N, D).
    """

    def herded(rows: Tensor) -> Tensor:
        return rows[herding(features[rows.to(features.device)], min(count, len(rows)))]

    return best_of_each(groups, count, herded)


def best_of_each(groups: Tensor, count: int, choose: Choice) -> Tensor:
    """The first `count` rows of each group in the order that `choose` gives them."""
    groups = groups.cpu()
    kept = [choose((groups == group).nonzero()[:, 0])[:count] for group in groups.unique().tolist()]
    return torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)


def herding(features: Tensor, count: int) -> Tensor:
    """Rows whose running mean follows the mean of all (Rebuffi et al., 2017, arXiv:1611.07725).

    One after the other, the row that brings the mean of those chosen closest to the mean of all
    (Algorithm 4 there); on ties the first.

    Args:
        features: (N, D), normalised by the caller if so wanted.
        count: at most N.

    Returns:
        int64 (count,) on the CPU, in the order of choice.
    """
    mean, chosen = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    order: list[Tensor] = []
    for step in range(1, count + 1):
        distance = (mean - (chosen + features) / step).square().sum(1)
        best = distance.masked_fill(~free, float("inf")).argmin()
        chosen = chosen + features[best]
        free = free.index_fill(0, best, 0)
        order.append(best)
    return torch.stack(order).cpu() if order else torch.empty(0, dtype=torch.int64)

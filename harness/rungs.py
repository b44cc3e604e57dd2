"""Rungs: what a configuration is worth after every task, and which ones go on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.trial import Accuracies


def rungs(grace: int, eta: int, total: int) -> list[int]:
    """Tasks after which asha looks at a configuration: grace, grace * eta, ... below `total`."""
    found: list[int] = []
    step = grace
    while step < total:
        found.append(step)
        step *= eta
    return found


def goes_on(value: float, reached: Sequence[float], eta: int) -> bool:
    """Whether a configuration is among the best 1/eta at a rung, one at least.

    The rule of asynchronous successive halving (Li et al., 2020, arXiv:1810.05934), for one that
    does not wait: what is stopped stays stopped.

    Args:
        value: its own.
        reached: those of all that have come to the rung, its own among them.
        eta: one in so many goes on.
    """
    best = sorted(reached, reverse=True)
    return value >= best[max(len(best) // eta, 1) - 1]


def values_by_step(curves: Sequence[Accuracies], tasks: int, metric: str) -> dict[int, float]:
    """The value of a configuration after every task of all its seeds, where there is one.

    It is the mean over the seeds begun of the metric so far: FA the accuracy after the last task,
    CA the mean over the tasks.

    Args:
        curves: accuracies of its seeds, all but the last of them whole.
        tasks: of one seed.
        metric: CA or FA.
    """
    found: dict[int, float] = {}
    before: list[float] = []
    for seed, curve in enumerate(curves):
        score = None
        for done in range(1, len(curve) + 1):
            score = _score(curve[:done], metric)
            if score is not None and not any(map(math.isnan, before)):
                found[seed * tasks + done] = math.fsum([*before, score]) / (len(before) + 1)
        before.append(math.nan if score is None else score)
    return found


def _score(curve: Accuracies, metric: str) -> float | None:
    wanted = curve if metric == "CA" else curve[-1:]
    known = [value for value in wanted if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(wanted) else None

"""Which differences from the best of a column are more than chance: paired by seed, with Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.stats import (
    LEVEL,
    TESTS,
    Numbers,
    Test,
    holm,
    paired_p,
    seeds_needed,
    smallest_p,
    t_interval,
)

Scores = Mapping[int, float]
"""A number of each seed."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How tables compare.

    Attributes:
        test: of paired differences (`analysis.stats.TESTS`).
        unequal: rank cells of a column though they rest on different seeds.
    """

    test: Test = "sign_flip"
    unequal: bool = False


DEFAULT: Final = Rules()


@dataclass(frozen=True, slots=True)
class Difference:
    """A label minus the best one, over the `n` seeds that both have.

    `low` and `high` bound the mean in a t-interval of 95 %; `p` is the test's, and `adjusted` that
    after Holm's correction over the differences of the column.
    """

    label: str
    n: int
    mean: float
    low: float
    high: float
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A column's best label, and what the others lack to it; `rules` say how that was tested."""

    best: str
    differences: tuple[Difference, ...]
    rules: Rules

    @property
    def too_few(self) -> list[Difference]:
        """Those that could not be significant, however large, with so few seeds."""
        return [one for one in self.differences if not self._able(one)]

    def _able(self, one: Difference) -> bool:
        return len(self.differences) * smallest_p(one.n, self.rules.test) < LEVEL

    def tied(self, label: str) -> bool:
        """Whether the test was able to find this label worse than the best and did not."""
        return any(
            one.label == label and one.adjusted >= LEVEL and self._able(one)
            for one in self.differences
        )


def verdict(scores: Mapping[str, Scores], best: str, rules: Rules = DEFAULT) -> Verdict:
    """Compare every label with the best one.

    Args:
        scores: of each label that is ranked, the best one included.
        best: the label that the others are compared with.
        rules: the test.
    """
    others = [label for label in scores if label != best]
    pairs = [_paired(scores[label], scores[best]) for label in others]
    p = _tested(pairs, rules.test)
    adjusted = holm(p)
    found = tuple(
        Difference(label, len(values), _mean(values), *t_interval(values), float(one), float(after))
        for label, values, one, after in zip(others, pairs, p, adjusted, strict=True)
    )
    return Verdict(best, found, rules)


def no_verdict(found: Sequence[Verdict]) -> str:
    """Why nothing is said of differences with too few seeds, and how many would do; or nothing."""
    unable = [one for one in found if one.too_few]
    if not unable:
        return ""
    most = max(unable, key=lambda one: len(one.differences))
    n, count = min(one.n for one in most.too_few), len(most.differences)
    test = most.rules.test
    some = (
        "" if all(len(one.too_few) == len(one.differences) for one in found) else " of some cells"
    )
    return (
        f"No verdict on differences{some}: with {n} seed{'' if n == 1 else 's'} the {TESTS[test]} "
        f"cannot reach p < {LEVEL:g} (at best {smallest_p(n, test):.2g}"
        f"{f' before correction for {count} comparisons' if count > 1 else ''}); "
        f"{seeds_needed(count, test)} seeds could."
    )


def _paired(ours: Scores, theirs: Scores) -> list[float]:
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def _tested(pairs: list[list[float]], test: Test) -> Numbers:
    if len({len(values) for values in pairs}) == 1:
        return paired_p(pairs, test)
    return np.array([paired_p([values], test)[0] for values in pairs])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

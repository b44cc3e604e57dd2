"""Statistics of a handful of seeds: spread, intervals, paired tests, and scores over benchmarks.

With 3 or 5 seeds no exact test of paired differences can reach 0.05 (`smallest_p`): those who use
these functions must say so instead of reading a large p as "no difference".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Numbers = npt.NDArray[np.float64]
Test = Literal["sign_flip", "t"]

LEVEL: Final = 0.05

TESTS: Final[dict[Test, str]] = {
    "sign_flip": "exact sign-flip test of differences paired by seed",
    "t": "t-test of differences paired by seed",
}

RESAMPLES: Final = 2000
"""Of a bootstrap; percentiles of its 95 % interval then move by less than a tenth of its width."""

_EXACT: Final = 2**14
"""Sign patterns that are all tried, those of 14 seeds; of more, as many are drawn."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (ddof 1) of `n` values.

    `mean` is NaN without values, `std` with fewer than two.
    """

    mean: float
    std: float
    n: int


def spread(values: npt.ArrayLike) -> Spread:
    """Mean, sample standard deviation and count of the values that are not NaN."""
    known = _known(values)
    mean = float(known.mean()) if len(known) else float("nan")
    std = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return Spread(mean, std, len(known))


def t_interval(values: npt.ArrayLike, level: float = 1 - LEVEL) -> tuple[float, float]:
    """Student's confidence interval of the mean; NaN bounds with fewer than two values.

    At 3 or 5 seeds of normal data it keeps its level, where bootstrap intervals cover too little.
    """
    known = spread(values)
    if known.n < 2:
        return float("nan"), float("nan")
    quantile = float(stats.t.ppf((1 + level) / 2, known.n - 1))
    half = quantile * known.std / known.n**0.5
    return known.mean - half, known.mean + half


def paired_p(differences: npt.ArrayLike, test: Test = "sign_flip") -> Numbers:
    """Two-sided p of the hypothesis that paired differences are 0 on average, for each of k rivals.

    `sign_flip` takes every pattern of signs as equally likely, and assumes nothing else; `t` takes
    differences as normal, which a handful of seeds cannot show. 1 where nothing can be said.

    Args:
        differences: (k, n), one a seed.
        test: which.
    """
    table = np.asarray(differences, dtype=float)
    if table.size == 0 or table.shape[1] < 2:
        return np.ones(len(table))
    if test == "t":
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # differences that are all the same
            found: Any = stats.ttest_1samp(table, 0.0, axis=1)
        return np.where(table.any(axis=1), found.pvalue, 1.0)
    found = stats.permutation_test(
        (table,),
        np.mean,
        permutation_type="samples",
        n_resamples=_EXACT,
        vectorized=True,
        axis=1,
        rng=np.random.default_rng(0),
    )
    return np.asarray(found.pvalue, dtype=float)


def smallest_p(n: int, test: Test = "sign_flip") -> float:
    """The smallest p that `paired_p` can give with `n` differences."""
    if test == "t":
        return 0.0 if n > 1 else 1.0
    return min(1.0, 2.0 ** (1 - n)) if n > 0 else 1.0


def seeds_needed(comparisons: int, test: Test = "sign_flip") -> int:
    """With how many seeds the smallest of so many p, after Holm's correction, can be below 0.05."""
    n = 1
    while max(1, comparisons) * smallest_p(n, test) >= LEVEL:
        n += 1
    return n


def holm(p_values: npt.ArrayLike) -> Numbers:
    """Holm's step-down adjusted p, in the order given (Holm, 1979, Scand. J. Statist. 6, 65-70).

    Written out: the library that has it takes seconds to import, and every run prints tables.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def interquartile_mean(values: npt.ArrayLike) -> float:
    """Mean of the middle half (IQM; Agarwal et al., 2021, arXiv:2108.13264)."""
    return float(stats.trim_mean(_known(values), 0.25))


def stratified_interval(
    strata: Sequence[npt.ArrayLike],
    rng: np.random.Generator,
    level: float = 1 - LEVEL,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Bootstrap percentile interval of `interquartile_mean` over strata, as of one method's scores.

    Args:
        strata: the seeds' scores on each benchmark; seeds are drawn anew within each.
        rng: all randomness comes from it.
        level: of the interval.
        resamples: how often.

    Raises:
        ValueError: if a stratum has no score.
    """
    known = [_known(values) for values in strata]
    if not known or any(len(values) == 0 for values in known):
        raise ValueError("a stratum without a score")
    drawn = [values[rng.integers(len(values), size=(resamples, len(values)))] for values in known]
    found = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def average_ranks(scores: npt.ArrayLike, *, higher_is_better: bool) -> Numbers:
    """Mean rank of each method, 1 the best; ties share a rank.

    Args:
        scores: (benchmarks, methods), without gaps.
        higher_is_better: which end is rank 1.
    """
    table = np.asarray(scores, dtype=float)
    return stats.rankdata(-table if higher_is_better else table, axis=1).mean(axis=0)


def _known(values: npt.ArrayLike) -> Numbers:
    flat = np.asarray(values, dtype=float).ravel()
    return flat[~np.isnan(flat)]

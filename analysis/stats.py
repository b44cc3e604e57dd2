"""Statistics of a handful of seeds: mean, sample standard deviation and a t-interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats


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


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean; NaN bounds with fewer than two values.

    At 3 or 5 seeds of normal data it keeps its level, where bootstrap intervals cover too little.
    """
    known = spread(values)
    if known.n < 2:
        return float("nan"), float("nan")
    quantile = float(stats.t.ppf((1 + level) / 2, known.n - 1))
    half = quantile * known.std / known.n**0.5
    return known.mean - half, known.mean + half


def _known(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    flat = np.asarray(values, dtype=float).ravel()
    return flat[~np.isnan(flat)]

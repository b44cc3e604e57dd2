"""Methods over several benchmarks: average ranks, and interquartile means with intervals.

A benchmark is a data set, cut into tasks in one way. Ranks need methods that were all measured on
every benchmark, with the same seeds: those with gaps are left out and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import scipy.stats

from analysis.aggregate import definition
from analysis.grid import Cell, Column, Grid
from analysis.stats import (
    average_ranks,
    interquartile_mean,
    seeds_needed,
    stratified_interval,
)

FEWEST_METHODS: Final = 3
"""For Friedman's test."""


@dataclass(frozen=True, slots=True)
class Across:
    """What one metric says over all benchmarks of a suite and protocol.

    Attributes:
        metric: its name.
        columns: the benchmarks.
        methods: the method of each label that takes part.
        scores: of each method (columns) on each benchmark (rows), the mean over seeds, as shown.
        table: a method a row, the best first: `rank` (mean; 1 is best), `iqm` (interquartile mean
            of all seeds on all benchmarks), and its 95 % interval `low` to `high`.
        left_out: labels with gaps, or with other seeds than the rest.
        needed: with how many benchmarks the tests of all pairs can reach 0.05.
        friedman: p of the hypothesis that all ranks are equal; None with fewer methods than three.
        pairwise: p of Wilcoxon's signed-rank test of each pair, with Holm's correction; None with
            fewer benchmarks than `needed`.
    """

    metric: str
    columns: list[Column]
    methods: dict[str, str]
    scores: pd.DataFrame
    table: pd.DataFrame
    left_out: list[str]
    needed: int
    friedman: float | None
    pairwise: pd.DataFrame | None


def across(grid: Grid, metric: str) -> Across | None:
    """The methods of a table over its benchmarks; None with fewer than two of either.

    References take no part, as in the table's own ranking.
    """
    columns = [column for column in grid.columns if column.metric == metric]
    better = definition(metric).higher_is_better
    found = {
        label: cells
        for label in grid.labels
        if (cells := [grid.cells.get((label, column)) for column in columns])
        and not any(cell is not None and cell.reference for cell in cells)
    }
    whole = {label: full for label, cells in found.items() if (full := _whole(cells))}
    seeds = _usual(whole)
    whole = {label: cells for label, cells in whole.items() if _seeds(cells) == seeds}
    if better is None or len(columns) < 2 or len(whole) < 2:
        return None
    scores = pd.DataFrame(
        {label: [cell.mean for cell in cells] for label, cells in whole.items()},
        index=pd.Index([str(column.setting) for column in columns]),
    )
    # Wilcoxon's test has the same smallest p as that of signs: all differences of one sign.
    needed = seeds_needed(len(whole) * (len(whole) - 1) // 2)
    several = len(whole) >= FEWEST_METHODS
    return Across(
        metric,
        columns,
        {label: cells[0].method for label, cells in whole.items()},
        scores,
        _table(whole, scores, higher_is_better=better),
        [label for label in found if label not in whole],
        needed,
        _friedman(scores) if several else None,
        _pairwise(scores) if several and len(columns) >= needed else None,
    )


def _whole(cells: list[Cell | None]) -> list[Cell] | None:
    full = [cell for cell in cells if cell is not None and cell.n and not cell.lack()]
    return full if len(full) == len(cells) else None


def _seeds(cells: list[Cell]) -> list[tuple[int, ...]]:
    return [cell.seeds for cell in cells]


def _usual(whole: dict[str, list[Cell]]) -> list[tuple[int, ...]]:
    """The seeds of each benchmark that most methods have."""
    known = [_seeds(cells) for cells in whole.values()]
    return max(known, key=known.count) if known else []


def _table(
    whole: dict[str, list[Cell]], scores: pd.DataFrame, *, higher_is_better: bool
) -> pd.DataFrame:
    ranks = average_ranks(scores.to_numpy(), higher_is_better=higher_is_better)
    lines: list[dict[str, object]] = []
    for (label, cells), rank in zip(whole.items(), ranks, strict=True):
        strata = [list(cell.scores.values()) for cell in cells]
        # A generator of its own for every method: its interval does not depend on the others.
        low, high = stratified_interval(strata, np.random.default_rng(0))
        middle = interquartile_mean(np.concatenate(strata))
        lines.append({"label": label, "rank": rank, "iqm": middle, "low": low, "high": high})
    return pd.DataFrame(lines).sort_values("rank", kind="stable", ignore_index=True)


def _friedman(scores: pd.DataFrame) -> float:
    with np.errstate(invalid="ignore"):  # all scores are ties
        found = float(scipy.stats.friedmanchisquare(*scores.to_numpy().T).pvalue)
    return 1.0 if np.isnan(found) else found


def _pairwise(scores: pd.DataFrame) -> pd.DataFrame:
    # Here, since it takes a second to import and only reports of many benchmarks need it.
    from scikit_posthocs import posthoc_wilcoxon

    long = scores.melt(var_name="label", value_name="score")
    found = posthoc_wilcoxon(
        long, val_col="score", group_col="label", p_adjust="holm", zero_method="zsplit", sort=False
    )
    return found.loc[list(scores.columns), list(scores.columns)]

"""Figures over all settings of a suite and protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

from analysis.across import Across, across
from analysis.figures.critical_difference import critical_difference
from analysis.load import Results
from analysis.tables import result_tables


@dataclass(frozen=True, slots=True)
class SuiteFigure:
    """A figure of one metric on all benchmarks; `draw` gives None where they are too few."""

    name: str
    title: str
    draw: Callable[[Across], Figure | None]


def ranking(results: Results, suite: str, protocol: str, metric: str) -> Across | None:
    """The methods of a suite over all that it measured of one metric under one protocol."""
    for table in result_tables(results, [metric], suite):
        if table.protocol == protocol:
            return across(table.grid, metric)
    return None


SUITE_FIGURES: Final = (
    SuiteFigure("critical_difference", "Average ranks over benchmarks", critical_difference),
)

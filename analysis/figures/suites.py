"""Figures over all settings of a suite and protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

from analysis.across import across
from analysis.figures.critical_difference import critical_difference
from analysis.load import Results
from analysis.tables import result_tables


@dataclass(frozen=True, slots=True)
class SuiteFigure:
    """A figure of one metric on all benchmarks; `draw` takes the store, suite, protocol, metric."""

    name: str
    title: str
    draw: Callable[[Results, str, str, str], Figure | None]


def _ranks(results: Results, suite: str, protocol: str, metric: str) -> Figure | None:
    for table in result_tables(results, [metric], suite):
        if table.protocol == protocol and (found := across(table.grid, metric)):
            lines = table.cells.drop_duplicates("label")
            methods = dict(zip(lines["label"], lines["method"], strict=True))
            return critical_difference(found, methods)
    return None


SUITE_FIGURES: Final = (
    SuiteFigure("critical_difference", "Average ranks over benchmarks", _ranks),
)

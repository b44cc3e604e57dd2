"""Result tables for printing by rich."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

from analysis.grid import BEST, SECOND, TIED, Cell, Column, Grid
from analysis.load import Results
from analysis.tables import ResultTable, result_tables

TERMINAL_WIDTH: Final = 120
"""Characters a line where nobody says how many there are."""

_LABEL_WIDTH: Final = 24  # longer labels may be folded


def terminal_tables(
    source: Path | Results,
    suite: str | None = None,
    metrics: Sequence[str] | None = None,
    width: int = TERMINAL_WIDTH,
) -> list[Table]:
    """For printing by rich: a table a suite, protocol and setting, n beside the numbers.

    Columns that do not fit into `width` characters go to a table of their own.
    """
    return [
        _terminal(part, columns, found)
        for part in result_tables(source, metrics, suite)
        for found in [part.grid]
        for setting in found.settings()
        for columns in _fitting([c for c in found.columns if c.setting == setting], found, width)
    ]


def _fitting(columns: Sequence[Column], found: Grid, width: int) -> Iterator[list[Column]]:
    """The columns in groups, each no wider than `width` beside labels and n, if one column is."""
    labels = _longest(found.labels)
    seeds = max(len(_seeds([cell])) for cell in found.cells.values())
    free = width - (labels + seeds + 7)  # lines and margins
    group: list[Column] = []
    taken = 0
    for column in columns:
        cells = [len(_value(cell)) for cell in found.column(column)]
        wide = max(len(column.metric), *cells) + 3
        if group and taken + wide > free:
            yield group
            group, taken = [], 0
        group.append(column)
        taken += wide
    if group:
        yield group


def _terminal(source: ResultTable, columns: Sequence[Column], found: Grid) -> Table:
    title = Text(f"{source.suite}: {source.protocol}, {columns[0].setting}")
    shown = Table(title=title, title_justify="left", title_style="bold")
    shown.add_column("method", overflow="fold", min_width=min(_LABEL_WIDTH, _longest(found.labels)))
    for column in columns:
        shown.add_column(column.metric, justify="right", no_wrap=True)
    shown.add_column("n", justify="right")
    styles = {BEST: "bold", SECOND: "underline"}
    for label in found.labels:
        line = [cell for column in columns if (cell := found.cells.get((label, column)))]
        if line:
            values = [Text(_value(cell), style=styles.get(cell.rank, "")) for cell in line]
            shown.add_row(Text(label), *values, Text(_seeds(line)))
    return shown


def _longest(labels: Sequence[str]) -> int:
    return max(len(label) for label in labels)


def _seeds(line: Sequence[Cell]) -> str:
    """The number of seeds behind a line, or what is lacking."""
    most = max(line, key=lambda cell: cell.n)
    return most.lack() or str(most.done)


def _value(cell: Cell) -> str:
    return f"{cell.value()} {TIED}" if cell.tied else cell.value()

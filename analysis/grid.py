"""A result table as lines, columns and ranked cells: what every way to print it starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from analysis.aggregate import definition

ABSENT: Final = "-"

TRAINING_FAILED: Final = "training failed"
"""In the place of a number where trials diverged and none is left (EDD's sensitivity tables)."""

BEST: Final = 1
SECOND: Final = 2

DIGITS: Final = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """Where methods are compared: a data set, cut into tasks in one way."""

    dataset: str
    num_tasks: int
    distribution: str

    def __str__(self) -> str:
        tasks = f"{self.num_tasks} task{'s' if self.num_tasks != 1 else ''}"
        irregular = "" if self.distribution == "regular" else f", {self.distribution}"
        return f"{self.dataset}, {tasks}{irregular}"


@dataclass(frozen=True, slots=True)
class Column:
    setting: Setting
    metric: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Mean and sample standard deviation as shown over `n` seeds, and the seeds without a number.

    `rank` is BEST, SECOND or 0; `usual_n` is the n that most cells of the table have.
    """

    mean: float
    std: float
    n: int
    wanted: int
    done: int
    diverged: int
    failed: int
    missing: int
    method: str
    reference: bool  # trained on data of all tasks: shown, but never best nor second
    usual_n: int
    rank: int = 0

    def value(self, sign: str = "±") -> str:
        """`34.56 ± 0.78`; a dash where there is no number, or what became of the trials."""
        if not self.n:
            return TRAINING_FAILED if self.diverged else ABSENT
        return f"{_fixed(self.mean)} {sign} {_fixed(self.std)}"

    def note(self) -> str:
        """`(2 of 3, 1 diverged)` if seeds are wanting, `(n = 2)` if most cells have another n."""
        lacking = {"diverged": self.diverged, "failed": self.failed, "missing": self.missing}
        parts = [f"{count} {state}" for state, count in lacking.items() if count]
        if parts or 0 < self.n < self.wanted:
            return f"({', '.join([f'{self.n} of {self.wanted}', *parts])})"
        return f"(n = {self.n})" if self.n and self.n != self.usual_n else ""

    def text(self) -> str:
        """Value and note."""
        return f"{self.value()} {self.note()}".strip()


@dataclass(frozen=True, slots=True)
class Grid:
    """Lines by label, columns by setting and metric; a pair without trials has no cell."""

    labels: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], Cell]

    def settings(self) -> list[Setting]:
        return list(dict.fromkeys(column.setting for column in self.columns))

    def line(self, label: str) -> list[Cell | None]:
        return [self.cells.get((label, column)) for column in self.columns]

    def column(self, column: Column) -> list[Cell]:
        found = (self.cells.get((label, column)) for label in self.labels)
        return [cell for cell in found if cell is not None]


def grid(cells: pd.DataFrame, metrics: Sequence[str]) -> Grid:
    """The cells of one suite and protocol (rows of `analysis.aggregate.cells`), ranked."""
    lines: list[dict[Any, Any]] = cells.to_dict("records")
    labels = list(dict.fromkeys(str(line["label"]) for line in lines))
    settings = _ordered(_setting(line) for line in lines)
    usual = usual_n(cells)
    found = {
        (str(line["label"]), Column(_setting(line), str(line["metric"]))): _cell(line, usual)
        for line in lines
    }
    present = {column for _, column in found}
    columns = [
        column
        for setting in settings
        for metric in metrics
        if (column := Column(setting, metric)) in present
    ]
    plain = Grid(labels, columns, found)
    ranks = {key: rank for column in columns for key, rank in _ranks(plain, column).items()}
    ranked = {key: replace(cell, rank=ranks.get(key, 0)) for key, cell in found.items()}
    return Grid(labels, columns, ranked)


def usual_n(cells: pd.DataFrame) -> int:
    """The number of seeds that most cells rest on, the larger of two that are as frequent."""
    counts = cells.loc[cells["n"] > 0, "n"].mode()
    return int(counts.max()) if len(counts) else 0


def _setting(line: dict[Any, Any]) -> Setting:
    return Setting(str(line["dataset"]), int(line["num_tasks"]), str(line["distribution"]))


def _ordered(settings: Iterable[Setting]) -> list[Setting]:
    """Data sets and distributions as they come first, fewer tasks before more."""
    known = list(dict.fromkeys(settings))
    datasets = list(dict.fromkeys(setting.dataset for setting in known))
    cuts = list(dict.fromkeys(setting.distribution for setting in known))

    def place(setting: Setting) -> tuple[int, int, int]:
        return datasets.index(setting.dataset), cuts.index(setting.distribution), setting.num_tasks

    return sorted(known, key=place)


def _cell(line: dict[Any, Any], usual: int) -> Cell:
    scale = definition(str(line["metric"])).scale
    return Cell(
        mean=scale * float(line["mean"]),
        std=scale * float(line["std"]),
        n=int(line["n"]),
        wanted=int(line["wanted"]),
        done=int(line["done"]),
        diverged=int(line["diverged"]),
        failed=int(line["failed"]),
        missing=int(line["missing"]),
        method=str(line["method"]),
        reference=bool(line["reference"]),
        usual_n=usual,
    )


def _ranks(table: Grid, column: Column) -> dict[tuple[str, Column], int]:
    """Best and second of a column at the printed precision; none if cells rest on unequal n."""
    found = table.column(column)
    numbers = {cell.n for cell in found if cell.n}
    better = definition(column.metric).higher_is_better
    scores = {
        (label, column): round(cell.mean, DIGITS)
        for label in table.labels
        if (cell := table.cells.get((label, column))) is not None and cell.n and not cell.reference
    }
    if better is None or len(numbers) != 1 or len(scores) < 2:
        return {}
    order = sorted(set(scores.values()), reverse=better)
    places = {value: rank for rank, value in zip((BEST, SECOND), order, strict=False)}
    return {key: places[value] for key, value in scores.items() if value in places}


def _fixed(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.{DIGITS}f}"

"""A result table as lines, columns and ranked cells: what every way to print it starts from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from analysis.aggregate import definition
from analysis.stats import t_interval
from analysis.verdicts import DEFAULT, Rules, Verdict, verdict

ABSENT: Final = "-"

TRAINING_FAILED: Final = "training failed"
"""In the place of a number where trials diverged and none is left (EDD's sensitivity tables)."""

BEST: Final = 1
SECOND: Final = 2

TIED: Final = "†"
"""Marks what is not significantly worse than the best of its column."""

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
class Published:
    """What a paper prints for a cell, as shown; `mean` is NaN where it prints words, the `note`."""

    mean: float
    std: float
    note: str

    def text(self) -> str:
        """`47.46 ± 1.76`, `74.20` without a spread, or the words."""
        if math.isnan(self.mean):
            return self.note or ABSENT
        return _fixed(self.mean) + ("" if math.isnan(self.std) else f" ± {_fixed(self.std)}")


@dataclass(frozen=True, slots=True)
class Cell:
    """Mean and sample standard deviation as shown over `n` seeds, and the seeds without a number.

    `scores` are what they are of, as shown, by seed; `rank` is BEST, SECOND or 0; `tied` says that
    it is not significantly worse than the best; `usual` are the seeds of most cells of the table.
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
    scores: Mapping[int, float]
    usual: tuple[int, ...]
    published: Published | None = None
    rank: int = 0
    tied: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.scores))

    def interval(self) -> tuple[float, float]:
        """The 95 % t-interval of the mean."""
        return t_interval(list(self.scores.values()))

    def value(self, sign: str = "±") -> str:
        """`34.56 ± 0.78`; a dash where there is no number, or what became of the trials."""
        if not self.n:
            return TRAINING_FAILED if self.diverged else ABSENT
        return f"{_fixed(self.mean)} {sign} {_fixed(self.std)}"

    def lack(self) -> str:
        """`2 of 3, 1 diverged` if seeds are wanting, else nothing."""
        counts = {"diverged": self.diverged, "failed": self.failed, "missing": self.missing}
        parts = [f"{count} {state}" for state, count in counts.items() if count]
        if parts or 0 < self.n < self.wanted:
            return ", ".join([f"{self.n} of {self.wanted}", *parts])
        return ""

    def note(self) -> str:
        """What is lacking, in brackets; or the seeds, if most cells rest on others."""
        if lack := self.lack():
            return f"({lack})"
        if not self.n or self.seeds == self.usual:
            return ""
        return f"(n = {self.n})" if self.n != len(self.usual) else f"({seeds_text(self.seeds)})"

    def difference(self) -> str:
        """`+0.36`, from the published mean to this one; nothing where one of them is not there."""
        if self.published is None or not self.n or math.isnan(self.published.mean):
            return ""
        return f"{self.mean - self.published.mean:+.{DIGITS}f}"

    def text(self) -> str:
        """Value, mark and note."""
        return " ".join(filter(None, (self.value(), TIED if self.tied else "", self.note())))


@dataclass(frozen=True, slots=True)
class Grid:
    """Lines by label, columns by setting and metric; a pair without trials has no cell.

    `verdicts` of the columns that are ranked.
    """

    labels: list[str]
    columns: list[Column]
    cells: dict[tuple[str, Column], Cell]
    verdicts: dict[Column, Verdict] = field(default_factory=dict[Column, Verdict])

    def settings(self) -> list[Setting]:
        return list(dict.fromkeys(column.setting for column in self.columns))

    def line(self, label: str) -> list[Cell | None]:
        return [self.cells.get((label, column)) for column in self.columns]

    def column(self, column: Column) -> list[Cell]:
        found = (self.cells.get((label, column)) for label in self.labels)
        return [cell for cell in found if cell is not None]


def grid(cells: pd.DataFrame, metrics: Sequence[str], rules: Rules = DEFAULT) -> Grid:
    """The cells of one suite and protocol (rows of `analysis.aggregate.cells`), ranked."""
    lines: list[dict[Any, Any]] = cells.to_dict("records")
    labels = list(dict.fromkeys(str(line["label"]) for line in lines))
    settings = _ordered(_setting(line) for line in lines)
    usual = usual_seeds(cells)
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
    made = Grid(labels, columns, found)
    for column in columns:
        _rank(made, column, rules)
    return made


def usual_seeds(cells: pd.DataFrame) -> tuple[int, ...]:
    """The seeds that most cells rest on; of those that are as frequent, the most."""
    known = [tuple(scores) for scores in cells["scores"] if scores]
    counts = Counter(known)
    return max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())


def seeds_text(seeds: Sequence[int]) -> str:
    """`seed 3`, `seeds 0 to 4`, `seeds 41, 43`."""
    word = "seed" if len(seeds) == 1 else "seeds"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{word} {seeds[0]} to {seeds[-1]}"
    return f"{word} {', '.join(map(str, seeds))}"


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


def _cell(line: dict[Any, Any], usual: tuple[int, ...]) -> Cell:
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
        scores={seed: scale * value for seed, value in line["scores"].items()},
        usual=usual,
        published=line.get("published"),
    )


def comparable(table: Grid, column: Column) -> bool:
    """Whether all rivals of a column rest on the same seeds, and none is still to be measured.

    One of which every trial diverged is no rival any more, and references are none.
    """
    rivals = [cell for cell in table.column(column) if not cell.reference]
    awaited = any(not cell.n and (cell.missing or cell.failed) for cell in rivals)
    return not awaited and len({cell.seeds for cell in rivals if cell.n}) <= 1


def _rank(table: Grid, column: Column, rules: Rules) -> None:
    """Mark best, second and what is no worse, at the printed precision.

    Not where cells are not `comparable`, unless the rules ask for it: an easy seed more would
    decide.
    """
    rivals = {
        label: cell
        for label in table.labels
        if (cell := table.cells.get((label, column))) is not None and cell.n and not cell.reference
    }
    better = definition(column.metric).higher_is_better
    if better is None or len(rivals) < 2 or not (rules.unequal or comparable(table, column)):
        return
    shown = {label: round(cell.mean, DIGITS) for label, cell in rivals.items()}
    places = dict(zip(sorted(set(shown.values()), reverse=better), (BEST, SECOND), strict=False))
    best = (max if better else min)(rivals, key=lambda label: rivals[label].mean)
    found = verdict({label: cell.scores for label, cell in rivals.items()}, best, rules)
    table.verdicts[column] = found
    for label, cell in rivals.items():
        rank = places.get(shown[label], 0)
        tied = rank != BEST and found.tied(label)
        table.cells[label, column] = replace(cell, rank=rank, tied=tied)


def _fixed(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.{DIGITS}f}"

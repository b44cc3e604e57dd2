"""Result tables: mean ± sample standard deviation of each label, in Markdown, LaTeX, CSV, terminal.

Methods under different protocols never share a table, nor do two suites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd
from rich.table import Table
from rich.text import Text

from analysis.aggregate import cells, definition
from analysis.grid import BEST, SECOND, Cell, Column, Grid, grid, usual_n
from analysis.load import Results, read
from analysis.scalars import SCALARS

DEFAULT_METRICS: Final = ("CA", "FA")

TERMINAL_WIDTH: Final = 120
"""Characters a line where nobody says how many there are."""

_LABEL_WIDTH: Final = 24  # longer labels may be folded

_CSV_COLUMNS: Final = (
    *("label", "dataset", "num_tasks", "distribution", "protocol", "metric", "mean", "std", "n"),
    *("wanted", "diverged", "failed", "missing", "method", "group", "primary"),
)
_LATEX_ESCAPES: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)
_MARKDOWN_ESCAPES: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\|*_`<>[]"})


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One suite under one protocol; `cells` are its rows of `analysis.aggregate.cells`."""

    suite: str
    protocol: str
    metrics: tuple[str, ...]
    cells: pd.DataFrame

    def grid(self) -> Grid:
        return grid(self.cells, self.metrics)


def table(
    source: Path | Results, metrics: Sequence[str] = DEFAULT_METRICS, suite: str | None = None
) -> pd.DataFrame:
    """The long form: one row a cell and metric, numbers as fractions (`aggregate.cells`)."""
    results = source if isinstance(source, Results) else read(source)
    found = cells(results, metrics)
    return found if suite is None else found[found["suite"] == suite]


def result_tables(
    source: Path | Results, metrics: Sequence[str] | None = None, suite: str | None = None
) -> list[ResultTable]:
    """One table a suite, protocol and list of columns, in the suites' order.

    `metrics` None means the lists that each suite asks for. Columns that nobody measured are left
    out, and tables without any other.
    """
    results = source if isinstance(source, Results) else read(source)
    tables: list[ResultTable] = []
    for name in map(str, results.trials["suite"].unique()):
        if suite in {None, name}:
            own = replace(results, trials=results.trials[results.trials["suite"] == name])
            for chosen in [metrics] if metrics else results.metrics.get(name, [DEFAULT_METRICS]):
                tables += _tables(own, name, tuple(chosen))
    return tables


def _tables(own: Results, suite: str, metrics: tuple[str, ...]) -> Iterator[ResultTable]:
    """The tables of one suite, a protocol each."""
    for protocol, part in table(own, metrics).groupby("protocol", sort=False):
        found = _measured(part)
        shown = tuple(name for name in metrics if (found["metric"] == name).any())
        if shown:
            yield ResultTable(suite, str(protocol), shown, found)


def _measured(found: pd.DataFrame) -> pd.DataFrame:
    """Cells without the scalars that no trial of a setting measured, though some are done."""
    setting = found.groupby(["dataset", "num_tasks", "distribution", "metric"], sort=False)
    nobody = (setting["n"].transform("sum") == 0) & (setting["done"].transform("sum") > 0)
    return found[~(nobody & found["metric"].isin(list(SCALARS)))]


def wide(source: ResultTable) -> pd.DataFrame:
    """The printed form: a line a label, a column a setting and metric, text in percent."""
    found = source.grid()
    columns = [(str(column.setting), column.metric) for column in found.columns]
    return pd.DataFrame(
        [[_plain(cell) for cell in found.line(label)] for label in found.labels],
        index=pd.Index(found.labels, name="method"),
        columns=pd.MultiIndex.from_tuples(columns, names=["setting", "metric"]),
    )


def caption(source: ResultTable) -> str:
    """What the numbers are: the metrics' definitions, the spread and the number of seeds."""
    formulas = [f"{name} = {definition(name).formula}" for name in source.metrics]
    primary = ", ".join(sorted(set(source.cells["primary"])))
    unless = " unless a cell says otherwise" if len(set(source.cells["n"]) - {0}) > 1 else ""
    sentences = [
        "Percent where no unit is named, mean ± sample standard deviation over "
        f"n = {usual_n(source.cells)} seeds{unless}.",
        f"{'; '.join(formulas)}; A[k,i] is the accuracy on task i after task k of T, both from 0, "
        f"measured by {primary}.",
    ]
    shown = sorted(set(source.cells.loc[source.cells["reference"], "label"]))
    if shown:
        sentences.append(f"Not ranked, being references trained on all data: {', '.join(shown)}.")
    return " ".join(sentences)


def markdown(source: ResultTable) -> str:
    """A pipe table, best bold and second underlined, with its caption below."""
    found = source.grid()
    heads = [
        f"{column.setting}: {column.metric}".translate(_MARKDOWN_ESCAPES)
        for column in found.columns
    ]
    lines = [["method", *heads], ["---", *["---:"] * len(heads)]]
    marks = {BEST: "**{}**", SECOND: "<ins>{}</ins>"}
    for label in found.labels:
        line = [_marked(cell, marks) for cell in found.line(label)]
        lines.append([label.translate(_MARKDOWN_ESCAPES), *line])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{caption(source).translate(_MARKDOWN_ESCAPES)}\n"


def latex(source: ResultTable) -> str:
    """A `table` for the package booktabs, best bold and second underlined."""
    found = source.grid()
    groups, rules, first = list[str](), list[str](), 2
    for setting in found.settings():
        span = sum(column.setting == setting for column in found.columns)
        groups.append(f"\\multicolumn{{{span}}}{{c}}{{{_tex(str(setting))}}}")
        rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    marks = {BEST: "\\textbf{{{}}}", SECOND: "\\underline{{{}}}"}
    body = [
        " & ".join([_tex(label), *(_marked(cell, marks, _tex) for cell in found.line(label))])
        for label in found.labels
    ]
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(caption(source))}}}",
            f"\\label{{tab:{_key(source.suite)}-{_key(source.protocol)}}}",
            f"\\begin{{tabular}}{{l{'r' * len(found.columns)}}}",
            "\\toprule",
            " & ".join(["", *groups]) + " \\\\",
            " ".join(rules),
            " & ".join(["Method", *(_tex(column.metric) for column in found.columns)]) + " \\\\",
            "\\midrule",
            *(f"{line} \\\\" for line in body),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def csv(source: ResultTable) -> str:
    """The long form at full precision; `mean` and `std` are fractions, empty where undefined."""
    return source.cells[list(_CSV_COLUMNS)].to_csv(index=False, lineterminator="\n")


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
        for found in [part.grid()]
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
        cells = [len(cell.value()) for cell in found.column(column)]
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
            values = [Text(cell.value(), style=styles.get(cell.rank, "")) for cell in line]
            shown.add_row(Text(label), *values, Text(_seeds(line)))
    return shown


def _longest(labels: Sequence[str]) -> int:
    return max(len(label) for label in labels)


def _seeds(line: Sequence[Cell]) -> str:
    """The number of seeds behind a line, or what is lacking."""
    most = max(line, key=lambda cell: cell.n)
    note = most.note().strip("()")
    return str(most.done) if not note or note.startswith("n =") else note


def _plain(cell: Cell | None) -> str:
    return "" if cell is None else cell.text()


def _marked(cell: Cell | None, marks: dict[int, str], escape: Callable[[str], str] = str) -> str:
    if cell is None:
        return ""
    value = marks.get(cell.rank, "{}").format(escape(cell.value()))
    return f"{value} {escape(cell.note())}".strip()


def _tex(text: str) -> str:
    return text.translate(_LATEX_ESCAPES)


def _key(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text)

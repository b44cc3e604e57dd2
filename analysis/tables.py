"""Result tables: mean ± sample standard deviation of each label, in Markdown, LaTeX and CSV.

Methods under different protocols never share a table, nor do two suites.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.aggregate import cells, definition
from analysis.captions import caption
from analysis.grid import BEST, SECOND, TIED, Cell, Grid, grid
from analysis.load import DONE, Results, read
from analysis.scalars import SCALARS
from analysis.verdicts import DEFAULT, Rules

__all__ = [
    "ResultTable",
    "by_protocol",
    "caption",
    "csv",
    "differences",
    "latex",
    "markdown",
    "result_table",
    "result_tables",
    "table",
    "wide",
]

DEFAULT_METRICS: Final = ("CA", "FA")

_CSV_COLUMNS: Final = (
    *("label", "dataset", "num_tasks", "distribution", "protocol", "metric", "mean", "std", "n"),
    *("low", "high", "seeds"),
    *("wanted", "diverged", "failed", "missing", "method", "group", "primary"),
)
_DIFFERENCE_COLUMNS: Final = (
    *("dataset", "num_tasks", "distribution", "metric", "label", "n", "mean", "std", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)
_REVISION: Final = 10  # hex digits
_LATEX_ESCAPES: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "†": r"$^\dagger$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)
_MARKDOWN_ESCAPES: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\|*_`<>[]"})


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One suite under one protocol.

    Attributes:
        suite: its name.
        protocol: its name.
        metrics: of the columns.
        cells: its rows of `analysis.aggregate.cells`; beside them, in a paper's table, `published`
            (`analysis.grid.Published` or None).
        grid: the same, ranked.
        rules: by which.
        revisions: git revisions that its trials were made with.
        title: of a paper's table, else empty.
        part: what tells its files from those of other tables of suite and protocol.
    """

    suite: str
    protocol: str
    metrics: tuple[str, ...]
    cells: pd.DataFrame
    grid: Grid
    rules: Rules
    revisions: tuple[str, ...]
    title: str = ""
    part: str = ""


def table(
    source: Path | Results, metrics: Sequence[str] = DEFAULT_METRICS, suite: str | None = None
) -> pd.DataFrame:
    """The long form: one row a cell and metric, numbers as fractions (`aggregate.cells`)."""
    results = source if isinstance(source, Results) else read(source)
    found = cells(results, metrics)
    return found if suite is None else found[found["suite"] == suite]


def result_tables(
    source: Path | Results,
    metrics: Sequence[str] | None = None,
    suite: str | None = None,
    rules: Rules = DEFAULT,
) -> list[ResultTable]:
    """One table a suite, protocol and list of columns, in the suites' order.

    `metrics` None means the lists that each suite asks for. Columns that nobody measured are left
    out, and tables without any other.
    """
    results = source if isinstance(source, Results) else read(source)
    tables: list[ResultTable] = []
    for name in map(str, results.trials["suite"].unique()):
        if suite in {None, name}:
            own = results.only(results.trials[results.trials["suite"] == name])
            for chosen in [metrics] if metrics else results.metrics.get(name, [DEFAULT_METRICS]):
                for part in by_protocol(table(own, metrics=chosen)):
                    made = result_table(own, part, chosen, rules)
                    tables += [made] if made else []
    return tables


def by_protocol(found: pd.DataFrame) -> list[pd.DataFrame]:
    """Cells of one suite, those of one protocol at a time."""
    return [part for _, part in found.groupby("protocol", sort=False)]


def result_table(
    results: Results,
    found: pd.DataFrame,
    metrics: Sequence[str],
    rules: Rules = DEFAULT,
    *,
    title: str = "",
    part: str = "",
) -> ResultTable | None:
    """The table of these cells, all of one suite and protocol; None if nobody measured any."""
    found = _measured(found)
    shown = tuple(name for name in metrics if (found["metric"] == name).any())
    if not shown:
        return None
    suite, protocol = (str(found[name].iloc[0]) for name in ("suite", "protocol"))
    ranked = grid(found, shown, rules)
    made = revisions(results, found)
    return ResultTable(suite, protocol, shown, found, ranked, rules, made, title, part)


def revisions(results: Results, found: pd.DataFrame) -> tuple[str, ...]:
    """The git revisions that the trials of these cells were made with, as captions name them."""
    trials = results.trials
    own = trials["group"].isin(found["group"].unique()) & (trials["state"] == DONE)
    made = results.provenance_of(trials.loc[own, "trial_id"])
    names = {
        line.revision[:_REVISION] + (" with uncommitted changes" if line.dirty else "")
        for line in made
    }
    return tuple(sorted(names))


def _measured(found: pd.DataFrame) -> pd.DataFrame:
    """Cells without the scalars that no trial of a setting measured, though some are done.

    Where a table is about scalars, neither are there settings of which none was measured.
    """
    setting = ["dataset", "num_tasks", "distribution"]
    scalar = found["metric"].isin(list(SCALARS))
    column = found.groupby([*setting, "metric"], sort=False)
    nobody = (column["n"].transform("sum") == 0) & (column["done"].transform("sum") > 0)
    kept = found[~(nobody & scalar)]
    about = kept["metric"].isin(list(SCALARS)).groupby([kept[name] for name in setting], sort=False)
    return kept[about.transform("any")] if about.any().any() else kept


def wide(source: ResultTable) -> pd.DataFrame:
    """The printed form: a line a label, a column a setting and metric, text in percent."""
    found = source.grid
    columns = [(str(column.setting), column.metric) for column in found.columns]
    return pd.DataFrame(
        [[_plain(cell) for cell in found.line(label)] for label in found.labels],
        index=pd.Index(found.labels, name="method"),
        columns=pd.MultiIndex.from_tuples(columns, names=["setting", "metric"]),
    )


def differences(source: ResultTable) -> pd.DataFrame:
    """Intervals, and differences from the best of each column that is ranked; numbers as shown.

    One row a cell: `dataset`, `num_tasks`, `distribution`, `metric`, `label`, `n`, `mean`, `std`,
    the 95 % t-interval `low` to `high`; and, NaN for the best and for what is not ranked,
    `difference` (label minus best, mean over seeds that both have), its t-interval
    `difference_low` to `difference_high`, `p` of the test and `p_holm`.
    """
    lines: list[dict[str, Any]] = []
    for column in source.grid.columns:
        found = source.grid.verdicts.get(column)
        known = {one.label: one for one in found.differences} if found else {}
        for label in source.grid.labels:
            cell = source.grid.cells.get((label, column))
            if cell is None or not cell.n:
                continue
            low, high = cell.interval()
            line = {**asdict(column.setting), "metric": column.metric, "label": label}
            line |= {"n": cell.n, "mean": cell.mean, "std": cell.std, "low": low, "high": high}
            if one := known.get(label):
                line |= {"difference": one.mean, "difference_low": one.low}
                line |= {"difference_high": one.high, "p": one.p, "p_holm": one.adjusted}
            lines.append(line)
    return pd.DataFrame(lines, columns=pd.Index(_DIFFERENCE_COLUMNS))


def markdown(source: ResultTable) -> str:
    """A pipe table, best bold and second underlined, with its caption below."""
    found = source.grid
    heads = [
        f"{column.setting}: {column.metric}".translate(_MARKDOWN_ESCAPES)
        for column in found.columns
    ]
    lines = [["method", *heads], ["---", *["---:"] * len(heads)]]
    marks = {BEST: "**{}**", SECOND: "<ins>{}</ins>"}
    for label in found.labels:
        line = [_marked(cell, marks) + _published_below(cell) for cell in found.line(label)]
        lines.append([label.translate(_MARKDOWN_ESCAPES), *line])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{caption(source).translate(_MARKDOWN_ESCAPES)}\n"


def _published_below(cell: Cell | None) -> str:
    if cell is None or cell.published is None:
        return ""
    difference = cell.difference()
    return f"<br>paper {cell.published.text()}" + (f" ({difference})" if difference else "")


def latex(source: ResultTable) -> str:
    """A `table` for the package booktabs, best bold and second underlined."""
    found = source.grid
    groups, rules, first = list[str](), list[str](), 2
    for setting in found.settings():
        span = sum(column.setting == setting for column in found.columns)
        groups.append(f"\\multicolumn{{{span}}}{{c}}{{{_tex(str(setting))}}}")
        rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    body = [line for label in found.labels for line in _latex_lines(found, label)]
    key = "-".join(filter(None, map(_key, (source.suite, source.protocol, source.part))))
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(caption(source))}}}",
            f"\\label{{tab:{key}}}",
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


def _latex_lines(found: Grid, label: str) -> Iterator[str]:
    """A label's line, and below it what a paper prints and the difference, if it prints any."""
    marks = {BEST: "\\textbf{{{}}}", SECOND: "\\underline{{{}}}"}
    line = found.line(label)
    yield " & ".join([_tex(label), *(_marked(cell, marks, _tex) for cell in line)])
    printed = [cell.published.text() if cell and cell.published else "" for cell in line]
    if any(printed):
        yield " & ".join(["\\quad published", *map(_tex, printed)])
        changes = [cell.difference() if cell else "" for cell in line]
        yield " & ".join(["\\quad difference", *(f"${one}$" if one else "" for one in changes)])


def csv(source: ResultTable) -> str:
    """The long form at full precision; numbers as stored, accuracies as fractions.

    `seeds` are those that measured. A paper's table has also `published_mean` and `published_std`.
    """
    seeds = [" ".join(map(str, scores)) for scores in source.cells["scores"]]
    long = source.cells.assign(seeds=seeds)
    columns = list(_CSV_COLUMNS)
    if "published" in long:
        scales = [definition(str(metric)).scale for metric in long["metric"]]
        for name in ("mean", "std"):
            long[f"published_{name}"] = [
                getattr(one, name) / scale if one is not None else math.nan
                for one, scale in zip(long["published"], scales, strict=True)
            ]
            columns.append(f"published_{name}")
    return long[columns].to_csv(index=False, lineterminator="\n")


def _plain(cell: Cell | None) -> str:
    return "" if cell is None else cell.text()


def _marked(cell: Cell | None, marks: dict[int, str], escape: Callable[[str], str] = str) -> str:
    if cell is None:
        return ""
    value = marks.get(cell.rank, "{}").format(escape(cell.value()))
    return " ".join(filter(None, (value, escape(TIED) if cell.tied else "", escape(cell.note()))))


def _tex(text: str) -> str:
    return text.translate(_LATEX_ESCAPES)


def _key(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text)

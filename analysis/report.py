"""The report of a store: tables, figures, and one HTML file that holds all of it.

The same store gives the same bytes: nothing in a report says when or where it was written.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import pandas as pd

from analysis.aggregate import STATES
from analysis.figures.catalogue import panel_figures
from analysis.figures.panels import Panel, panels
from analysis.figures.style import save
from analysis.grid import BEST, SECOND, Grid
from analysis.load import DIVERGED, FAILED, Provenance, Results, StoreError, read
from analysis.metrics import METRICS
from analysis.tables import (
    ResultTable,
    caption,
    csv,
    latex,
    markdown,
    result_tables,
)

MORE_TABLES: Final[Mapping[str, Sequence[str]]] = {
    "more": ("forgetting", "BWT", "learning_accuracy"),
    "robust": ("mCA", "AUROC", "FPR95", "many", "medium", "few", "class_std", "bias_to_last"),
    "cost": ("held_MB", "parameters_M", "train_s", "epoch_s"),
}
"""What further tables of each protocol show, as far as the suite does not ask for it itself."""

_FAILURES_SHOWN: Final = 50
_TEMPLATE: Final = "report.html.j2"


@dataclass(frozen=True, slots=True)
class _Table:
    """A table for the page; `files` are its other forms, relative to the page."""

    title: str
    caption: str
    grid: Grid
    files: list[str]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A figure for the page; `data` is its PNG in base64, `files` its forms beside the page.

    `inches` is its width in print, by which the page lays it out.
    """

    title: str
    alt: str
    data: str
    files: list[str]
    inches: float


@dataclass(frozen=True, slots=True)
class _Protocol:
    name: str
    tables: list[_Table]
    pictures: list[_Picture]


@dataclass(frozen=True, slots=True)
class _Suite:
    """One section; `failures` holds (label and setting, class, first line) of trials not stored."""

    name: str
    states: dict[str, int]
    failures: list[tuple[str, str, str]]
    more_failures: int
    protocols: list[_Protocol]


def write_report(root: Path, out: Path) -> Path:
    """Write tables, figures and `index.html` of the store `root` into `out`; returns the page.

    Raises:
        StoreError: if the store cannot be read or holds nothing to report.
    """
    results = read(root)
    if results.trials.empty:
        raise StoreError(f"{root}: no trial is stored and no suite wants any; run a suite first")
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    names = [str(name) for name in results.trials["suite"].unique()]
    tables = [found for name in names for found in _tables(results, name)]
    shown = [(table, _write_table(table, part, out)) for part, table in tables]
    drawn = [(panel, _write_figures(panel, out)) for panel in panels(results)]
    suites = [_suite(name, results.trials, shown, drawn) for name in names]
    page = out / "index.html"
    page.write_text(_render(suites, results), encoding="utf-8")
    return page


def _tables(results: Results, suite: str) -> Iterator[tuple[str, ResultTable]]:
    """The tables that a suite asks for, then the others, each with what its files are called."""
    counts: Counter[str] = Counter()
    for table in result_tables(results, suite=suite):
        counts[table.protocol] += 1
        number = counts[table.protocol]
        yield "" if number == 1 else str(number), table
    asked = {name for names in results.metrics.get(suite, ()) for name in names}
    for part, metrics in MORE_TABLES.items():
        if wanted := [name for name in metrics if name not in asked]:
            for table in result_tables(results, wanted, suite):
                yield part, table


def _suite(
    name: str,
    trials: pd.DataFrame,
    tables: Sequence[tuple[ResultTable, _Table]],
    drawn: Sequence[tuple[Panel, list[_Picture]]],
) -> _Suite:
    own = trials[trials["suite"] == name]
    protocols = [
        _Protocol(
            protocol,
            [shown for made, shown in tables if (made.suite, made.protocol) == (name, protocol)],
            sorted(
                (
                    picture
                    for panel, pictures in drawn
                    if (panel.suite, panel.protocol) == (name, protocol)
                    for picture in pictures
                ),
                key=lambda picture: picture.inches,
            ),
        )
        for protocol in map(str, own["protocol"].unique())
    ]
    states = {state: int((own["state"] == state).sum()) for state in STATES}
    failures = _failures(own)
    shown = failures[:_FAILURES_SHOWN]
    return _Suite(name, states, shown, len(failures) - len(shown), protocols)


def _failures(trials: pd.DataFrame) -> list[tuple[str, str, str]]:
    lost = trials[trials["state"].isin([FAILED, DIVERGED])]
    return [
        (
            f"{line['label']}, {line['dataset']}, {line['num_tasks']} tasks, "
            f"{line['distribution']}, seed {line['seed']} ({line['trial_id']})",
            str(line["failure"]),
            str(line["message"]),
        )
        for line in lost.to_dict("records")
    ]


def _write_table(table: ResultTable, part: str, out: Path) -> _Table:
    stem = _file_name(table.suite, table.protocol, part)
    writers: dict[str, Callable[[ResultTable], str]] = {"md": markdown, "tex": latex, "csv": csv}
    files = [f"tables/{stem}.{kind}" for kind in writers]
    for file, writer in zip(files, writers.values(), strict=True):
        (out / file).write_text(writer(table), encoding="utf-8")
    return _Table(", ".join(table.metrics), caption(table), table.grid, files)


def _write_figures(panel: Panel, out: Path) -> list[_Picture]:
    labels = ", ".join(dict.fromkeys(panel.rows["label"].astype(str)))
    setting = panel.setting
    cut = (setting.dataset, str(setting.num_tasks), setting.distribution)
    pictures: list[_Picture] = []
    for kind in panel_figures():
        figure = kind.draw(panel)
        if figure is None:
            continue
        stem = _file_name(kind.name, panel.suite, panel.protocol, *cut)
        png, pdf = save(figure, out / "figures" / stem)
        data = base64.b64encode(png.read_bytes()).decode()
        files = [f"figures/{path.name}" for path in (png, pdf)]
        alt = f"{kind.title} on {setting} for {labels}"
        inches = float(figure.get_figwidth())
        pictures.append(_Picture(f"{kind.title}: {setting}", alt, data, files, inches))
    return pictures


def _file_name(*parts: str) -> str:
    """The parts joined by hyphens, which they do not contain themselves."""
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _render(suites: Sequence[_Suite], results: Results) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(_TEMPLATE).render(
        suites=suites,
        marks={BEST: "best", SECOND: "second"},
        definitions=[(entry.name, entry.formula) for entry in METRICS.values()],
        stored=len(results.provenance),
        unwanted=results.unwanted,
        revisions=_revisions(results.provenance),
        versions=_versions(results.provenance),
    )


def _revisions(lines: Iterable[Provenance]) -> list[tuple[str, bool, int]]:
    """Revision, whether it had uncommitted changes, and the trials made with it."""
    counts = Counter((line.revision, line.dirty) for line in lines)
    return [(revision, dirty, count) for (revision, dirty), count in sorted(counts.items())]


def _versions(lines: Iterable[Provenance]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Library, and its versions with the trials made with each."""
    counts = Counter(pair for line in lines for pair in line.versions)
    names = sorted({name for name, _ in counts})
    return [
        (name, [(text, n) for (of, text), n in sorted(counts.items()) if of == name])
        for name in names
    ]

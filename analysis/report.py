"""The report of a store: tables, figures, and one HTML file that holds all of it.

The same store gives the same bytes: nothing in a report says when or where it was written.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from analysis.across import Across
from analysis.aggregate import STATES, cells
from analysis.equal_memory import HELD, equal_memory
from analysis.figures.catalogue import PanelFigure, panel_figures
from analysis.figures.panels import Panel, panels
from analysis.figures.searches import STUDY_FIGURES
from analysis.figures.style import save
from analysis.figures.suites import SUITE_FIGURES, ranking
from analysis.grid import DIGITS
from analysis.load import DIVERGED, FAILED, Results, StoreError, read
from analysis.origin import Query, about
from analysis.page import Block, Picture, PlainTable, Section, ShownTable, render
from analysis.paper import Paper, shown
from analysis.search_tables import bought, configurations, rung_table, sentence, settings
from analysis.searches import StudyFound
from analysis.stats import LEVEL
from analysis.tables import (
    DEFAULT_METRICS,
    ResultTable,
    by_protocol,
    caption,
    csv,
    differences,
    latex,
    markdown,
    result_table,
    result_tables,
)
from analysis.tuned import once_more, rest
from analysis.verdicts import DEFAULT, Rules

MORE_TABLES: Final[Mapping[str, Sequence[str]]] = {
    "more": ("forgetting", "BWT", "learning_accuracy"),
    "robust": ("mCA", "AUROC", "FPR95", "many", "medium", "few", "class_std", "bias_to_last"),
    "cost": ("CA", "FA", "held_MB", "parameters_M", "images_k", "train_s", "epoch_s"),
}
"""What further tables of each protocol show, as far as the suite does not ask for it itself."""

RANKED: Final = ("CA", "FA", "CA_weighted", "FA_weighted")
"""Metrics by which methods are ranked over benchmarks."""

_FAILURES_SHOWN: Final = 50

Notify = Callable[[str], None]
"""Called with what is being done, as it takes minutes where there are many figures."""


def write_report(
    root: Path,
    out: Path,
    paper: Paper | None = None,
    rules: Rules = DEFAULT,
    notify: Notify | None = None,
) -> Path:
    """Write tables, figures and `index.html` of the store `root` into `out`; returns the page.

    Args:
        root: the store.
        out: the folder to write into.
        paper: what is shown is what it shows; None: whatever is stored.
        rules: how cells are compared.
        notify: told of every figure.

    Raises:
        StoreError: if the store cannot be read or holds nothing to report.
    """
    results = read(root)
    if results.trials.empty and not results.studies:
        raise StoreError(f"{root}: no trial is stored and no suite wants any; run a suite first")
    for folder in ("tables", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    writer = _Writer(results, out, rules, notify)
    suites = [str(name) for name in results.trials["suite"].unique()]
    if paper is None:
        searches = dict.fromkeys(study.search for study in results.studies)
        sections = [*map(writer.search, searches), *map(writer.suite, suites)]
        title = f"Engram: {', '.join([*(f'search {name}' for name in searches), *suites])}"
    else:
        sections = [writer.paper(paper), *(writer.states(name) for name in suites)]
        title = f"Engram: {paper.title}"
    page = out / "index.html"
    page.write_text(render(title, sections, results), encoding="utf-8")
    return page


class _Writer:
    """Writes the files of one report and says what the page shows of them."""

    def __init__(self, results: Results, out: Path, rules: Rules, notify: Notify | None) -> None:
        self.results = results
        self.out = out
        self.rules = rules
        self.notify = notify

    def paper(self, paper: Paper) -> Section:
        """A block for every table and figure of a paper."""
        blocks: list[Block] = []
        known = [one for one in panels(self.results) if one.protocol in paper.protocols]
        for item in shown(paper, self.results, known, self.rules):
            tables = [self.table(table, table.part) for table in item.tables]
            figures = [self.picture(kind, panel, panel.labels()) for kind, panel in item.figures]
            pictures = [picture for picture in figures if picture is not None]
            notes = item.lacking if not pictures else []
            blocks.append(Block(item.title, tables, (), pictures, notes))
        return Section(paper.title, blocks)

    def suite(self, name: str) -> Section:
        """Whatever is stored of a suite: a block for each of its protocols."""
        own = self.results.trials[self.results.trials["suite"] == name]
        tables = list(self._tables(name))
        blocks = [self.protocol(name, str(one), tables) for one in own["protocol"].unique()]
        chosen = {"once_more": once_more(self.results, name), "rest": rest(self.results, name)}
        plain = [self.plain(table, name, part) for part, table in chosen.items() if table]
        if plain:
            blocks = [Block("Settings that a search chose", (), plain), *blocks]
        return replace(self.states(name), blocks=blocks)

    def search(self, name: str) -> Section:
        """What a search tried and found: a block for each of its studies."""
        own = [study for study in self.results.studies if study.search == name]
        blocks = [Block("Budget", (), [self.plain(bought(own), name, "bought")])]
        return Section(f"Search {name}", [*blocks, *map(self.study, own)])

    def study(self, study: StudyFound) -> Block:
        """What one study tried."""
        tables = {"settings": settings(study)}
        if study.rungs:
            tables["rungs"] = rung_table(study)
        tables["configurations"] = configurations(study)
        plain = [
            self.plain(table, study.search, study.name, part) for part, table in tables.items()
        ]
        pictures: list[Picture] = []
        for one in STUDY_FIGURES:
            if figure := one.draw(study):
                stem = _file_name(one.name, study.search, study.name)
                alt = f"{one.title}: {study.name}, {', '.join(study.space)}"
                query = Query(one.name, study.search, study.name)
                pictures.append(self._save(figure, query, stem, one.title, alt))
        return Block(study.name, (), plain, pictures, [sentence(study)])

    def plain(self, table: PlainTable, *names: str) -> PlainTable:
        """The same table with a CSV file."""
        file = f"tables/{_file_name('search', *names)}.csv"
        frame = pd.DataFrame(list(table.lines), columns=pd.Index(table.heads))
        frame.to_csv(self.out / file, index=False, lineterminator="\n")
        return replace(table, files=[file])

    def states(self, name: str) -> Section:
        """What became of a suite's trials."""
        own = self.results.trials[self.results.trials["suite"] == name]
        states = {state: int((own["state"] == state).sum()) for state in STATES}
        failures = _failures(own)
        some = failures[:_FAILURES_SHOWN]
        return Section(f"Suite {name}", (), states, some, len(failures) - len(some))

    def protocol(
        self, suite: str, protocol: str, tables: Sequence[tuple[str, ResultTable]]
    ) -> Block:
        """What is stored of a suite under one protocol; `tables` are the suite's."""
        own = [(part, table) for part, table in tables if table.protocol == protocol]
        made = [self.table(table, part) for part, table in own]
        found = [
            self.picture(kind, panel)
            for panel in panels(self.results, suite)
            if panel.protocol == protocol
            for kind in panel_figures()
            if not kind.slow
        ]
        pictures = sorted(filter(None, found), key=lambda picture: picture.inches)
        asked = [name for part, table in own if part not in MORE_TABLES for name in table.metrics]
        plain, drawn = self._across(suite, protocol, [name for name in RANKED if name in asked])
        return Block(f"Protocol {protocol}", made, plain, [*drawn, *pictures])

    def _tables(self, suite: str) -> Iterator[tuple[str, ResultTable]]:
        """The tables that a suite asks for, then others, each with what its files are called."""
        results, counts = self.results, Counter[str]()
        for table in result_tables(results, suite=suite, rules=self.rules):
            counts[table.protocol] += 1
            number = counts[table.protocol]
            yield "" if number == 1 else str(number), table
        asked = {name for names in results.metrics.get(suite, ()) for name in names}
        for part, metrics in MORE_TABLES.items():
            if set(metrics) - asked - set(DEFAULT_METRICS):
                wanted = [name for name in metrics if part == "cost" or name not in asked]
                for table in result_tables(results, wanted, suite, self.rules):
                    found = table.cells[~table.cells["metric"].isin(DEFAULT_METRICS)]
                    if (found["n"] > 0).any():  # the suite did not ask for it: no empty ones
                        yield part, table
        own = results.only(results.trials[results.trials["suite"] == suite])
        for found in by_protocol(cells(own, ["FA", HELD])):
            chosen, columns = equal_memory(found)
            table = result_table(own, chosen, columns, self.rules) if columns else None
            if table is not None:
                title = "At equal memory: of each method the variant that holds most within it"
                yield "equal_memory", replace(table, title=title)

    def table(self, table: ResultTable, part: str) -> ShownTable:
        table = replace(table, part=part)
        stem = _file_name(table.suite, table.protocol, part)
        writers: dict[str, Callable[[ResultTable], str]] = {
            "md": markdown,
            "tex": latex,
            "csv": csv,
        }
        files = [f"tables/{stem}.{kind}" for kind in writers]
        for file, writer in zip(files, writers.values(), strict=True):
            (self.out / file).write_text(writer(table), encoding="utf-8")
        found = differences(table)
        more = f"tables/{stem}-differences.csv"
        found.to_csv(self.out / more, index=False, lineterminator="\n")
        title = table.title or ", ".join(table.metrics)
        return ShownTable(title, caption(table), table.grid, files, _details(found, more))

    def picture(
        self, kind: PanelFigure, panel: Panel, labels: tuple[str, ...] = ()
    ) -> Picture | None:
        """Draw a figure of a panel, or None; `labels` are those that were chosen of it."""
        cut = asdict(panel.setting)
        where = Query(kind.name, panel.suite, panel.protocol, **cut, labels=labels)
        if self.notify:
            self.notify(str(where))
        figure = kind.draw(panel)
        if figure is None:
            return None
        stem = _file_name(kind.name, panel.suite, panel.protocol, *map(str, cut.values()))
        named = ", ".join(panel.labels())
        alt = f"{kind.title} on {panel.setting} for {named}"
        return self._save(figure, where, stem, f"{kind.title}: {panel.setting}", alt)

    def _save(self, figure: Figure, query: Query, stem: str, title: str, alt: str) -> Picture:
        text = about(self.results, query)
        png, pdf = save(figure, self.out / "figures" / stem, text)
        data = base64.b64encode(png.read_bytes()).decode()
        files = [f"figures/{path.name}" for path in (png, pdf)]
        return Picture(title, alt, data, files, float(figure.get_figwidth()))

    def _across(
        self, suite: str, protocol: str, metrics: Iterable[str]
    ) -> tuple[list[PlainTable], list[Picture]]:
        """Ranks and means over the benchmarks of a suite and protocol, by each of these metrics."""
        plain: list[PlainTable] = []
        drawn: list[Picture] = []
        for metric in metrics:
            found = ranking(self.results, suite, protocol, metric)
            if found is None:
                continue
            file = f"tables/{_file_name(suite, protocol, 'across', metric)}.csv"
            found.table.to_csv(self.out / file, index=False, lineterminator="\n")
            plain.append(_ranking(found, file))
            for one in SUITE_FIGURES:
                if figure := one.draw(found):
                    stem = _file_name(one.name, suite, protocol, metric)
                    alt = f"{one.title} by {metric}: {', '.join(found.table['label'])}"
                    title = f"{one.title} by {metric}; bars join what tests do not tell apart"
                    query = Query(one.name, suite, protocol, metric=metric)
                    drawn.append(self._save(figure, query, stem, title, alt))
        return plain, drawn


def _ranking(found: Across, file: str) -> PlainTable:
    lines = [
        [
            str(line["label"]),
            f"{line['rank']:.2f}",
            f"{line['iqm']:.{DIGITS}f}",
            f"{line['low']:.{DIGITS}f} to {line['high']:.{DIGITS}f}",
        ]
        for line in found.table.to_dict("records")
    ]
    values: list[list[float | None]] = [
        [None, float(line["rank"]), float(line["iqm"]), float(line["low"])]
        for line in found.table.to_dict("records")
    ]
    count = len(found.columns)
    sentences = [
        f"Mean rank by {found.metric}, 1 the best; interquartile mean of all seeds on all "
        "benchmarks, with the 95 % interval of a bootstrap stratified by benchmark.",
    ]
    if found.friedman is not None:
        sentences.append(f"All ranks equal: p = {found.friedman:.2g} (Friedman's test).")
    if found.pairwise is None:
        sentences.append(
            f"No verdict on pairs: with {count} benchmarks Wilcoxon's test of each pair, with "
            f"Holm's correction, cannot reach p < {LEVEL:g}; {found.needed} benchmarks could."
        )
    if found.left_out:
        sentences.append(f"Left out, lacking seeds or benchmarks: {', '.join(found.left_out)}.")
    heads = ["method", "mean rank", "interquartile mean", "95 % interval"]
    title = f"{found.metric} over {count} benchmarks"
    return PlainTable(heads, lines, values, title, " ".join(sentences), [file])


def _details(found: pd.DataFrame, file: str) -> PlainTable:
    """Intervals and differences of a table, for reading."""
    heads = ["setting", "metric", "method", "n", "mean", "95 % t-interval"]
    heads += ["minus best", "95 % t-interval", "p", "p (Holm)"]
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for line in found.to_dict("records"):
        setting = f"{line['dataset']}, {line['num_tasks']} tasks, {line['distribution']}"
        lines.append(
            [
                *(setting, str(line["metric"]), str(line["label"]), str(line["n"])),
                *(_number(line["mean"]), _interval(line["low"], line["high"])),
                _number(line["difference"], sign=True),
                _interval(line["difference_low"], line["difference_high"]),
                *(_p(line["p"]), _p(line["p_holm"])),
            ]
        )
        numbers = [line[name] for name in ("n", "mean", "low", "difference", "difference_low")]
        numbers += [line["p"], line["p_holm"]]
        values.append([None, None, None, *map(float, numbers)])
    return PlainTable(heads, lines, values, files=[file])


def _number(value: float, *, sign: bool = False) -> str:
    return "" if math.isnan(value) else f"{value:{'+' if sign else ''}.{DIGITS}f}"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.{DIGITS}f} to {high:.{DIGITS}f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _failures(trials: pd.DataFrame) -> list[tuple[str, str, str]]:
    lost: list[dict[Any, Any]] = trials[trials["state"].isin([FAILED, DIVERGED])].to_dict("records")
    return [
        (
            f"{line['label']}, {line['dataset']}, {line['num_tasks']} tasks, "
            f"{line['distribution']}, seed {line['seed']} ({line['trial_id']})",
            str(line["failure"]),
            str(line["message"]),
        )
        for line in lost
    ]


def _file_name(*parts: str) -> str:
    """The parts joined by hyphens, which they do not contain themselves."""
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)

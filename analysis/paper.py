"""What a paper shows, as data: its tables and figures, and the suite that makes each.

A paper is a module of `analysis.papers` with a `PAPER`. Whatever the store holds of it is shown;
what it lacks is named beside the suite that makes it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import analysis.papers as folder
from analysis.aggregate import cells, flat
from analysis.figures.catalogue import PanelFigure, panel_figures
from analysis.figures.panels import Panel
from analysis.grid import Setting
from analysis.literature import beside, published
from analysis.load import Results
from analysis.tables import ResultTable, by_protocol, result_table
from analysis.verdicts import DEFAULT, Rules


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        title: its number and what it shows.
        metrics: its columns.
        suite: which suite makes it.
        labels: its lines, in its order.
        beside: further lines, which stand below it and make no table alone.
        source: of the published numbers that stand beside it (`analysis.literature`).
        distribution: of its scenarios; None: any.
        requires: settings that a trial must have to be compared with what is published.
    """

    title: str
    metrics: Sequence[str]
    suite: str
    labels: Sequence[str]
    source: str = ""
    distribution: str | None = None
    requires: Mapping[str, Any] = field(default_factory=dict[str, Any])
    beside: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """A figure of a paper: one of `analysis.figures.catalogue` by its name, of these labels."""

    title: str
    figure: str
    suite: str
    labels: Sequence[str]
    distribution: str | None = None


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper, in its order; its trials are those of these protocols."""

    name: str
    title: str
    protocols: Sequence[str]
    items: Sequence[PaperTable | PaperFigure]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a store holds of one item, and a line on each part that it lacks."""

    title: str
    tables: list[ResultTable]
    figures: list[tuple[PanelFigure, Panel]]
    lacking: list[str]


def papers() -> dict[str, Paper]:
    """Every paper by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    return {name: importlib.import_module(f"{folder.__name__}.{name}").PAPER for name in names}


def shown(
    paper: Paper, results: Results, panels: Sequence[Panel], rules: Rules = DEFAULT
) -> Iterator[Shown]:
    """The items of a paper, as far as the store has them."""
    own = [panel for panel in panels if panel.protocol in paper.protocols]
    for item in paper.items:
        if isinstance(item, PaperTable):
            yield _table(paper, item, results, rules)
        else:
            yield _figure(item, own)


def _table(paper: Paper, item: PaperTable, results: Results, rules: Rules) -> Shown:
    trials = results.trials
    lines = [*item.labels, *item.beside]
    wanted = trials["protocol"].isin(list(paper.protocols)) & trials["label"].isin(lines)
    if item.distribution is not None:
        wanted &= trials["distribution"] == item.distribution
    printed = published(paper.name)
    printed = printed[printed["source"] == item.source]
    tables: list[ResultTable] = []
    seen: list[pd.DataFrame] = []
    for suite in trials.loc[wanted, "suite"].unique():
        own = results.only(trials[wanted & (trials["suite"] == suite)])
        found = cells(own, item.metrics)
        found = found.assign(published=_beside(own, found, printed, item.requires))
        for number, part in enumerate(by_protocol(_in_order(found, lines))):
            done = part.loc[part["n"] > 0, "label"].map(_plain)
            if not done.isin(list(item.labels)).any():
                continue
            key = _stem(item.title) + (f"-{number}" if number else "")
            made = result_table(own, part, item.metrics, rules, title=item.title, part=key)
            if made is not None:
                tables.append(made)
                seen.append(part)
    return Shown(item.title, tables, [], _lacking(item, seen, printed))


def _beside(
    results: Results, found: pd.DataFrame, printed: pd.DataFrame, requires: Mapping[str, Any]
) -> list[Any]:
    """What is published, for the cells whose trials have the settings that it was made with."""
    same = {
        str(line["group"])
        for line in results.trials.to_dict("records")
        if all(flat(line["settings"]).get(key) == value for key, value in requires.items())
    }
    known = beside(found, printed)
    return [
        one if str(group) in same else None
        for one, group in zip(known, found["group"], strict=True)
    ]


def _in_order(found: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The cells in the order of the paper's lines; labels with suffixes behind their own."""
    place = {label: number for number, label in enumerate(labels)}
    key = [place.get(_plain(label), len(place)) for label in found["label"]]
    return found.assign(place=key).sort_values("place", kind="stable").drop(columns="place")


def _plain(label: str) -> str:
    """A label without the settings that tell it from others of its name."""
    return label.split(" (")[0]


def _lacking(item: PaperTable, seen: Sequence[pd.DataFrame], printed: pd.DataFrame) -> list[str]:
    """What is printed and not stored, in one line; if nothing is, that too."""
    done = [part[part["n"] > 0] for part in seen]
    command = f"`python run_benchmark.py run configs/suite/{item.suite}.yaml` makes"
    if not done:
        return [f"Not stored; {command} it."]
    known = {place for part in done for place in _places(part)}
    labels = {_plain(label) for part in done for label in part["label"]}
    settings = [str(Setting(*place, "regular")) for place in _places(printed) if place not in known]
    absent = [label for label in item.labels if label not in labels]
    missing = ["; ".join(settings), ", ".join(absent)]
    return [f"Not stored: {words}. {command} them." for words in missing if words]


def _places(found: pd.DataFrame) -> list[tuple[str, int]]:
    """Data sets and numbers of tasks, each pair once, in their order."""
    pairs = zip(found["dataset"], found["num_tasks"], strict=True)
    return list(dict.fromkeys((str(dataset), int(tasks)) for dataset, tasks in pairs))


def _figure(item: PaperFigure, panels: Sequence[Panel]) -> Shown:
    kinds = {kind.name: kind for kind in panel_figures()}
    kind = kinds[item.figure]
    chosen = [
        (kind, part)
        for panel in panels
        if item.distribution in {None, panel.setting.distribution}
        if (part := panel.only(item.labels)) is not None
    ]
    command = f"`python run_benchmark.py run configs/suite/{item.suite}.yaml` makes what it shows."
    return Shown(item.title, [], chosen, [f"Not stored; {command}"])


def _stem(title: str) -> str:
    return "_".join(title.split(":")[0].lower().split())

"""Figures of a study: how it went, what was tried, what mattered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import COLUMN_INCHES, PAGE_INCHES, PALETTE, house_style
from analysis.search_tables import best_so_far, written
from analysis.searches import StudyFound, importance

_GREY: Final = "#888888"
_MARKS: Final = {
    "done": ("o", PALETTE[0], "ran to its end"),
    "stopped": ("v", _GREY, "stopped, as it stood then"),
    "running": ("D", PALETTE[4], "running"),
    "diverged": ("X", PALETTE[1], "diverged"),
    "failed": ("s", PALETTE[3], "failed"),
}


@dataclass(frozen=True, slots=True)
class StudyFigure:
    """A figure of one study; `draw` gives None where it has too little to show."""

    name: str
    title: str
    draw: Callable[[StudyFound], Figure | None]


@house_style()
def history(study: StudyFound) -> Figure | None:
    """The value of every configuration in the order they were begun, and the best so far."""
    if not study.tried:
        return None
    figure = Figure(figsize=(COLUMN_INCHES, 2.6))
    axes = figure.add_subplot()
    known = [one.last for one in study.tried if one.last is not None]
    floor = 100 * min(known, default=0.0)
    for end, (marker, color, name) in _MARKS.items():
        shown = [one for one in study.tried if one.end == end]
        if not shown:
            continue
        heights = [floor if one.last is None else 100 * one.last for one in shown]
        hollow = {} if end == "done" else {"facecolors": "none"}
        axes.scatter(
            [one.number for one in shown],
            heights,
            marker=marker,
            edgecolors=color,
            s=16,
            label=name,
            zorder=2,
            **(hollow or {"facecolors": color}),
        )
    best = [math.nan if one is None else 100 * one for one in best_so_far(study.tried)]
    if any(not math.isnan(value) for value in best):
        axes.step(
            range(len(best)), best, where="post", color=PALETTE[0], linewidth=0.8, label="best"
        )
    axes.set_xlabel("configuration")
    axes.set_ylabel(f"{study.metric} on validation (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@house_style()
def parallel(study: StudyFound) -> Figure | None:
    """A line a configuration through its hyperparameters and its value, dark where that is low."""
    shown = sorted(
        (one for one in study.tried if one.last is not None), key=lambda one: one.last or 0.0
    )
    names = list(study.space)
    if len(shown) < 2:
        return None
    low, high = (100 * (one.last or 0.0) for one in (shown[0], shown[-1]))
    span = (high - low) or 1.0
    paths = [
        [
            *(
                (place, _height(study.space[name], one.configuration[name]))
                for place, name in enumerate(names)
            ),
            (len(names), (100 * (one.last or 0.0) - low) / span),
        ]
        for one in shown
    ]
    figure = Figure(figsize=(min(PAGE_INCHES, max(COLUMN_INCHES, 1.1 * (len(names) + 1))), 2.8))
    axes = figure.add_subplot()
    colors = [mpl.colormaps["viridis"](path[-1][1]) for path in paths]
    widths = [1.2 if one.end == "done" else 0.6 for one in shown]
    lines = LineCollection(paths, colors=colors, linewidths=widths)
    lines.set_linestyle(["-" if one.end == "done" else ":" for one in shown])
    axes.add_collection(lines)
    axes.set_xlim(-0.15, len(names) + 0.15)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(range(len(names) + 1), [*names, f"{study.metric} (%)"])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    for place in range(len(names) + 1):
        axes.axvline(place, color="#BBBBBB", linewidth=0.8, zorder=0)
    marks = [_marks(study.space[name]) for name in names]
    marks.append([(0.0, f"{low:.1f}"), (1.0, f"{high:.1f}")])
    for place, ends in enumerate(marks):
        for height, text in ends:
            axes.annotate(
                text,
                (place, height),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
            )
    return figure


def _height(kind: Mapping[str, Any], value: Any) -> float:  # noqa: ANN401 - a setting's value
    """Where a value stands on its axis, from 0 to 1."""
    if "values" in kind:
        return kind["values"].index(value) / (len(kind["values"]) - 1)
    scale = math.log if kind["log"] else float
    low, high = scale(kind["low"]), scale(kind["high"])
    return (scale(value) - low) / (high - low)


def _marks(kind: Mapping[str, Any]) -> list[tuple[float, str]]:
    values = kind["values"] if "values" in kind else (kind["low"], kind["high"])
    return [(_height(kind, value), written(value)) for value in values]


@house_style()
def importances(study: StudyFound) -> Figure | None:
    """How much of the variance each hyperparameter explains; None for a space of one."""
    if len(study.space) < 2:
        return None
    found = importance(study)
    if found is None:
        return None
    shares, _, _ = found
    figure = Figure(figsize=(COLUMN_INCHES, 0.6 + 0.28 * len(shares)))
    axes = figure.add_subplot()
    names = list(reversed(shares))
    bars = axes.barh(names, [shares[name] for name in names], color=PALETTE[0], height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set_xlim(0, 1.12 * max(shares.values()))
    axes.set_xlabel(f"share of the variance of {study.metric}")
    axes.grid(visible=False, axis="y")
    return figure


STUDY_FIGURES: Final = (
    StudyFigure("search_history", "What was tried", history),
    StudyFigure("search_parallel", "Hyperparameters and value; dotted: not to its end", parallel),
    StudyFigure("search_importance", "Importance of each hyperparameter", importances),
)

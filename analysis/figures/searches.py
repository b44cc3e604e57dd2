"""Figures of a study: how it went, what was tried, what mattered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import COLUMN_INCHES, PAGE_INCHES, PALETTE, house_style, logarithmic
from analysis.search_tables import best_so_far, written
from analysis.searches import StudyFound, TriedOne, importance

_GREY: Final = "#888888"
_LOST: Final = {
    "running": ("D", PALETTE[4]),
    "diverged": ("X", PALETTE[1]),
    "failed": ("s", PALETTE[3]),
}
_RUNG_MARKERS: Final = ("v", "^", "<", ">", "p", "h")


@dataclass(frozen=True, slots=True)
class StudyFigure:
    """A figure of one study; `draw` gives None where it has too little to show."""

    name: str
    title: str
    draw: Callable[[StudyFound], Figure | None]


@house_style()
def history(study: StudyFound) -> Figure | None:
    """The value of every configuration in the order they were begun, and the best so far.

    What was stopped stands where it stood then, by how many tasks it had learned; what has no value
    stands below all others.
    """
    if not study.tried:
        return None
    figure = Figure(figsize=(COLUMN_INCHES, 2.8))
    axes = figure.add_subplot()
    done = [one for one in study.tried if one.end == "done"]
    _marks_of(axes, done, "o", PALETTE[0], "to its end", filled=True)
    for place, step in enumerate(study.steps()[:-1]):
        stopped = [one for one in study.tried if one.end == "stopped" and one.tasks == step]
        marker = _RUNG_MARKERS[place % len(_RUNG_MARKERS)]
        name = f"stopped after {step} task{'s' * (step > 1)}"
        _marks_of(axes, stopped, marker, _GREY, name, filled=False)
    known = [one.last for one in study.tried if one.last is not None]
    floor = min(known, default=0.0)
    for end, (marker, color) in _LOST.items():
        lost = [replace(one, value=one.last or floor) for one in study.tried if one.end == end]
        _marks_of(axes, lost, marker, color, end, filled=False)
    best = [math.nan if one is None else 100 * one for one in best_so_far(study.tried)]
    if not all(map(math.isnan, best)):
        axes.step(
            range(len(best)), best, where="post", color=PALETTE[0], linewidth=0.8, label="best"
        )
    axes.set_xlabel("configuration")
    axes.set_ylabel(f"{study.metric} on validation (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _marks_of(
    axes: Axes, tried: Sequence[TriedOne], marker: str, color: str, name: str, *, filled: bool
) -> None:
    if tried:
        axes.scatter(
            [one.number for one in tried],
            [100 * (one.last or 0.0) for one in tried],
            marker=marker,
            edgecolors=color,
            facecolors=color if filled else "none",
            s=16,
            label=name,
            zorder=2,
        )


@house_style()
def slices(study: StudyFound) -> Figure | None:
    """The value against each hyperparameter, after as many tasks as there are rungs."""
    steps = [step for step in study.steps() if any(step in one.values for one in study.tried)]
    if not steps:
        return None
    names = list(study.space)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    width = COLUMN_INCHES if columns == 1 else PAGE_INCHES
    figure = Figure(figsize=(width, 0.4 + 2.0 * rows))
    plots = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, name in zip(plots, names, strict=False):
        for place, step in enumerate(steps):
            reached = [one for one in study.tried if step in one.values]
            last = place == len(steps) - 1
            axes.scatter(
                [_place(study.space[name], one.configuration[name]) for one in reached],
                [100 * one.values[step] for one in reached],
                marker="o" if last else _RUNG_MARKERS[place % len(_RUNG_MARKERS)],
                edgecolors=PALETTE[(len(steps) - 1 - place) % len(PALETTE)],
                facecolors=PALETTE[0] if last else "none",
                s=14,
                label=f"{study.metric} after {step} task{'s' * (step > 1)}",
            )
        _scale(axes, study.space[name])
        axes.set_xlabel(name)
    for axes in plots[len(names) :]:
        axes.set_visible(False)
    for axes in plots[::columns]:
        axes.set_ylabel("on validation (%)")
    handles, texts = plots[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=1 if columns == 1 else 3)
    return figure


def _place(kind: Mapping[str, Any], value: Any) -> float:  # noqa: ANN401 - a setting's value
    return kind["values"].index(value) if "values" in kind else value


def _scale(axes: Axes, kind: Mapping[str, Any]) -> None:
    if "values" in kind:
        axes.set_xticks(range(len(kind["values"])), [written(one) for one in kind["values"]])
        axes.set_xlim(-0.5, len(kind["values"]) - 0.5)
    elif kind["log"]:
        axes.set_xscale("log")
        logarithmic(axes.xaxis)


@house_style()
def parallel(study: StudyFound) -> Figure | None:
    """A line a configuration through its hyperparameters and its value; None for a space of one.

    Dark where the value is low. What did not come to its end has none to compare: it is grey, and
    has no line to the last axis.
    """
    names = list(study.space)
    done = sorted((one for one in study.tried if one.value is not None), key=lambda o: o.value or 0)
    if len(done) < 2 or len(names) < 2:
        return None
    low, high = (100 * (one.value or 0.0) for one in (done[0], done[-1]))
    figure = Figure(figsize=(min(PAGE_INCHES, max(COLUMN_INCHES, 1.1 * (len(names) + 1))), 2.8))
    axes = figure.add_subplot()
    for one in study.tried:
        if one.value is None:
            heights = _heights(study, one)
            axes.plot(heights, color="#BBBBBB", linewidth=0.5, linestyle=":", zorder=1)
    for one in done:
        share = (100 * (one.value or 0.0) - low) / ((high - low) or 1.0)
        path = [*_heights(study, one), share]
        axes.plot(path, color=mpl.colormaps["viridis"](share), linewidth=1.2, zorder=2)
    axes.set_xlim(-0.15, len(names) + 0.3)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(range(len(names) + 1), [*names, f"{study.metric} (%)"])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    ends = [
        *(_ends(study.space[name]) for name in names),
        [(0.0, f"{low:.1f}"), (1.0, f"{high:.1f}")],
    ]
    for place, marks in enumerate(ends):
        axes.axvline(place, color="#888888", linewidth=0.8, zorder=0)
        for height, text in marks:
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


def _heights(study: StudyFound, one: TriedOne) -> list[float]:
    return [_height(kind, one.configuration[name]) for name, kind in study.space.items()]


def _height(kind: Mapping[str, Any], value: Any) -> float:  # noqa: ANN401 - a setting's value
    """Where a value stands on its axis, from 0 to 1."""
    if "values" in kind:
        return kind["values"].index(value) / (len(kind["values"]) - 1)
    scale = math.log if kind["log"] else float
    low, high = scale(kind["low"]), scale(kind["high"])
    return (scale(value) - low) / (high - low)


def _ends(kind: Mapping[str, Any]) -> list[tuple[float, str]]:
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
    StudyFigure("search_slices", "Value against each hyperparameter", slices),
    StudyFigure("search_parallel", "Hyperparameters together; grey: not to its end", parallel),
    StudyFigure("search_importance", "Importance of each hyperparameter", importances),
)

"""Accuracy on the tasks seen so far, after each task: one line a method, a band of ± one std."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.panels import looks_in, matrices
from analysis.figures.style import COLUMN_INCHES, Look, house_style
from analysis.metrics import Matrix, accuracy_curve

_LEGEND_LINE_INCHES = 0.155
_MARKS_A_LINE = 10
_ALL_TICKS = 10
_CHARACTERS_A_ROW = 58  # of a legend in 7 pt; a handle takes the room of six


@house_style()
def accuracy_curves(rows: pd.DataFrame) -> Figure:
    """One panel from the accuracy rows of its trials, under their labels (`panels.Panel.rows`).

    Lines join the measured points; a label measured after the last task alone is a single mark.
    """
    found = matrices(rows)
    style = looks_in(rows)
    figure = Figure(figsize=(COLUMN_INCHES, 2.3 + legend_inches(list(found))))
    axes = figure.add_subplot()
    for label, a in found.items():
        _draw(axes, accuracy_curve(a), label, style[label])
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("accuracy on tasks seen (%)")
    axes.set_xticks(_task_ticks(next(iter(found.values())).shape[-1]))
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]), top=min(100.0, axes.get_ylim()[1]))
    legend_below(figure, list(found))
    return figure


def legend_below(
    figure: Figure, labels: list[str], handles: Sequence[Artist] | None = None
) -> None:
    """Put the legend of a figure of a column's width below it; `handles` None: of all its axes."""
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=legend_columns(labels),
        handlelength=2.6,
        columnspacing=1,
    )


def legend_inches(labels: list[str]) -> float:
    """The height that it takes."""
    return _LEGEND_LINE_INCHES * -(-len(labels) // legend_columns(labels))


def line_over_tasks(axes: Axes, means: pd.Series[float], label: str, look: Look) -> None:
    """A label's line through numbers that are indexed by task."""
    axes.plot(
        means.index + 1,
        means.to_numpy(),
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        markevery=max(1, len(means) // _MARKS_A_LINE),
        label=label,
    )


def _draw(axes: Axes, curves: Matrix, label: str, look: Look) -> None:
    """One line from its seeds' curves (N, T) in percent."""
    tasks = np.arange(1, curves.shape[1] + 1)
    mean = curves.mean(0)
    every = max(1, len(tasks) // _MARKS_A_LINE)
    axes.plot(
        tasks,
        mean,
        color=look.color,
        linestyle=look.line,
        marker=look.marker,
        markevery=(0 if np.isfinite(mean[:-1]).any() else len(tasks) - 1, every),
        label=label,
    )
    if len(curves) > 1:
        std = curves.std(0, ddof=1)
        axes.fill_between(tasks, mean - std, mean + std, color=look.color, alpha=0.15, linewidth=0)


def _task_ticks(tasks: int) -> list[int]:
    """All of up to ten tasks; of more, the first and every fifth, tenth or so."""
    if tasks <= _ALL_TICKS:
        return list(range(1, tasks + 1))
    step = 5 * max(1, round(tasks / 25))
    return [1, *range(step, tasks + 1, step)]


def legend_columns(labels: list[str]) -> int:
    """As many as fit in a column's width, at most three."""
    widest = max((len(label) for label in labels), default=1) + 6
    return max(1, min(3, len(labels), _CHARACTERS_A_ROW // widest))


FIGURE = PanelFigure(
    "accuracy_curves", "Accuracy on the tasks seen", lambda panel: accuracy_curves(panel.rows)
)

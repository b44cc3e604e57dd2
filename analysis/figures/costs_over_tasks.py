"""What methods cost, task by task: seconds of an epoch above, bytes held below (EDD's A.3, A.4)."""

from __future__ import annotations

from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, Look, house_style

_COSTS: Final = {
    "epoch_seconds": ("seconds an epoch", 1.0),
    "method_memory_bytes": ("MB held", 1e-6),
}


@house_style()
def costs_over_tasks(panel: Panel) -> Figure | None:
    """Means over seeds after each task; bytes are those beside the network of finetuning."""
    rows = panel.costs[panel.costs["condition"].isna().to_numpy()]
    rows = rows[(rows["after_task"] >= 0).to_numpy()]
    shown = {
        metric: part
        for metric in _COSTS
        if len(part := rows[(rows["metric"] == metric).to_numpy()])
    }
    if not shown:
        return None
    labels = list(map(str, rows["label"].unique()))
    style = looks_in(panel.rows, labels)
    figure = Figure(figsize=(COLUMN_INCHES, 0.3 + 1.35 * len(shown) + legend_inches(labels)))
    plots = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, (metric, part) in zip(plots, shown.items(), strict=True):
        name, scale = _COSTS[metric]
        for label in labels:
            own = part[(part["label"] == label).to_numpy()]
            _line(axes, own, scale, label, style[label])
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    handles = {
        text: handle
        for axes in plots
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    plots[-1].set_xlabel("tasks learned")
    plots[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, labels, handles=[handles[label] for label in labels if label in handles])
    return figure


def _line(axes: Axes, rows: pd.DataFrame, scale: float, label: str, look: Look) -> None:
    if rows.empty:
        return
    means = scale * rows.groupby("after_task")["value"].mean()
    axes.plot(
        means.index + 1,
        means.to_numpy(),
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        markevery=max(1, len(means) // 10),
        label=label,
    )


FIGURE = PanelFigure("costs_over_tasks", "Time and memory, task by task", costs_over_tasks)

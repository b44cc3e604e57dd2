"""What methods cost, task by task: seconds of an epoch above, bytes held below (EDD's A.3, A.4)."""

from __future__ import annotations

from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches, line_over_tasks
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style

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
            if len(own):
                means = scale * own.groupby("after_task")["value"].mean()
                line_over_tasks(axes, means, label, style[label])
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


FIGURE = PanelFigure("costs_over_tasks", "Time and memory, task by task", costs_over_tasks)

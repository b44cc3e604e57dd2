"""What recalled images cost and how far they are from the originals, task by task."""

from __future__ import annotations

from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style

_METRICS: Final = {"bits_per_pixel": "bits a pixel", "recall_error": "mean squared error"}


@house_style()
def recall_by_task(panel: Panel) -> Figure | None:
    """Bits per pixel above, mean squared error of pixels in [0, 1] below, ± one std over seeds."""
    rows = panel.last[(panel.last["evaluator"] == "recall").to_numpy()]
    if rows.empty:
        return None
    labels = [str(label) for label in rows["label"].unique()]
    style = looks_in(panel.rows, labels)
    figure = Figure(figsize=(COLUMN_INCHES, 2.9 + legend_inches(labels)))
    panels = figure.subplots(len(_METRICS), sharex=True)
    for axes, (metric, name) in zip(panels, _METRICS.items(), strict=True):
        for label in labels:
            own = rows[(rows["metric"] == metric).to_numpy() & (rows["label"] == label).to_numpy()]
            by_task = own.groupby("on_task", observed=True)["value"]
            axes.errorbar(
                by_task.mean().index + 1,
                by_task.mean().to_numpy(),
                yerr=by_task.std(ddof=1).fillna(0).to_numpy(),
                color=style[label].color,
                marker=style[label].marker,
                linestyle=style[label].line,
                label=label if axes is panels[0] else None,
            )
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name)
    panels[-1].set_xlabel("task of the image")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, labels)
    return figure


FIGURE = PanelFigure("recall_by_task", "Bits and errors of recalled images", recall_by_task)

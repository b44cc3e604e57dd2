"""Accuracy under each corruption as a radar: a ring a method (BrainCL, arXiv:2504.14727).

`corruptions` shows the same numbers on straight lines, where lengths compare better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.corruptions import corruption_accuracies
from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style

_FEWEST = 3  # spokes
_ALIGNMENTS = {-1: "right", 0: "center", 1: "left"}


@house_style()
def corruption_radar(panel: Panel) -> Figure | None:
    """Mean over severities and seeds after the last task."""
    table = corruption_accuracies(panel.last)
    if table.shape[1] < _FEWEST:
        return None
    labels = [str(label) for label in table.index]
    style = looks_in(panel.rows, labels)
    figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES + legend_inches(labels)))
    axes: Any = figure.add_subplot(projection="polar")
    angles = np.linspace(0, 2 * np.pi, table.shape[1], endpoint=False)
    for label in labels:
        values = 100 * table.loc[label].to_numpy(dtype=float)
        axes.plot(
            [*angles, angles[0]],
            [*values, values[0]],
            color=style[label].color,
            linestyle=style[label].line,
            marker=style[label].marker,
            markersize=3,
            label=label,
        )
    names = [str(name).replace("_", "\n") for name in table.columns]
    axes.set_xticks(angles, names, fontsize=6)
    for angle, text in zip(angles, axes.get_xticklabels(), strict=True):
        text.set_horizontalalignment(_ALIGNMENTS[round(float(np.cos(angle)))])
    axes.tick_params(axis="x", pad=1)
    axes.tick_params(axis="y", labelsize=6)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_rlabel_position(-180 / table.shape[1])  # between the last spoke and the first
    axes.set_ylim(bottom=0)
    legend_below(figure, labels)
    return figure


FIGURE = PanelFigure("corruption_radar", "Accuracy under corruptions, as a radar", corruption_radar)

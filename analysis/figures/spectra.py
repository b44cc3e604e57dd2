"""Spectra of the features' covariance after the last task: one line a method."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style, logarithmic

_SMALLEST = 1e-8
"""Of a share that is drawn: below are rounding errors of features in single precision."""


@house_style()
def spectra(panel: Panel) -> Figure | None:
    """Share of each eigenvalue, the largest first, on logarithmic axes; the first seed's."""
    found = panel.last_details("spectrum")
    if not found:
        return None
    style = looks_in(panel.rows, found)
    figure = Figure(figsize=(COLUMN_INCHES, 2.3 + legend_inches(list(found))))
    axes = figure.add_subplot()
    for label, seeds in found.items():
        frame = seeds[0].sort_values("index")
        share = frame["share"].to_numpy(dtype=float)
        kept = share > _SMALLEST
        place = np.arange(1, len(share) + 1)
        axes.plot(
            place[kept],
            share[kept],
            color=style[label].color,
            linestyle=style[label].line,
            marker=style[label].marker,
            markevery=0.25,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    axes.set_xlabel("eigenvalue, the largest first")
    axes.set_ylabel("share of the variance")
    legend_below(figure, list(found))
    return figure


FIGURE = PanelFigure("spectra", "Spectra of the features after the last task", spectra)

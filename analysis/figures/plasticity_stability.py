"""Plasticity against stability at the end: a mark a method (BrainCL, arXiv:2504.14727)."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.curves import legend_below, legend_inches
from analysis.figures.panels import Panel, looks_in, matrices
from analysis.figures.style import COLUMN_INCHES, house_style
from analysis.metrics import plasticity, stability
from analysis.stats import spread


@house_style()
def plasticity_stability(panel: Panel) -> Figure | None:
    """Accuracy on the newest task against that on the older ones, ± one standard deviation each."""
    if panel.setting.num_tasks < 2:
        return None
    found = matrices(panel.rows)
    style = looks_in(panel.rows)
    figure = Figure(figsize=(COLUMN_INCHES, 2.6 + legend_inches(list(found))))
    axes = figure.add_subplot()
    axes.axline((0, 0), slope=1, color="#999999", linewidth=0.6, linestyle=":")
    for label, a in found.items():
        old, new = spread(stability(a)), spread(plasticity(a))
        axes.errorbar(
            old.mean,
            new.mean,
            xerr=old.std if old.n > 1 else None,
            yerr=new.std if new.n > 1 else None,
            color=style[label].color,
            marker=style[label].marker,
            linestyle="",
            label=label,
        )
    axes.set_xlim(-4, 104)
    axes.set_ylim(-4, 104)
    axes.set_xlabel("stability: accuracy on older tasks (%)")
    axes.set_ylabel("plasticity: on the newest (%)")
    legend_below(figure, list(found))
    return figure


FIGURE = PanelFigure(
    "plasticity_stability", "Plasticity against stability at the end", plasticity_stability
)

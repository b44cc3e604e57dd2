"""Confidence on own and on foreign images after the last task: two histograms a method."""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples
from analysis.figures.panels import Panel
from analysis.figures.style import PALETTE, house_style

_OWN, _FOREIGN = PALETTE[0], PALETTE[1]


@house_style()
def ood_histograms(panel: Panel) -> Figure | None:
    """Densities of the largest softmax probability; the first seed's."""
    found = panel.last_details("ood")
    if not found:
        return None
    figure, axes = multiples(list(found), ratio=0.75, across=4)
    for label, seeds in found.items():
        frame = seeds[0]
        edges = [*frame["left"], frame["right"].iloc[-1]]
        axes[label].stairs(frame["id"], edges, color=_OWN, fill=True, alpha=0.5)
        axes[label].stairs(frame["ood"], edges, color=_FOREIGN, linewidth=1.2)
        axes[label].set_xlim(0, 1)
    own, foreign = next(iter(axes.values())).patches[:2]
    figure.legend(
        [own, foreign], ["own images", "foreign images"], loc="outside upper center", ncols=2
    )
    figure.supxlabel("largest softmax probability", fontsize=8)
    figure.supylabel("density", fontsize=8)
    return figure


FIGURE = PanelFigure("ood", "Confidence on own and on foreign images", ood_histograms)

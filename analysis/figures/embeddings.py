"""Maps of features in two dimensions (t-SNE) after the last task: one panel a method."""

from __future__ import annotations

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples, picture_axes
from analysis.figures.panels import Panel
from analysis.figures.style import house_style

_COLORS = "viridis"


@house_style()
def embeddings(panel: Panel) -> Figure | None:
    """A dot an image, coloured by its task; the first seed's."""
    found = panel.last_details("embedding")
    if not found:
        return None
    figure, axes = multiples(list(found), margin=1.0, across=4)
    tasks = panel.setting.num_tasks
    scale = Normalize(1, max(2, tasks))
    for label, seeds in found.items():
        frame = seeds[0]
        picture_axes(axes[label])
        axes[label].scatter(
            frame["x"], frame["y"], c=frame["task"] + 1, norm=scale, cmap=_COLORS, s=2, linewidths=0
        )
    bar = figure.colorbar(
        ScalarMappable(scale, _COLORS), ax=list(axes.values()), shrink=0.9, pad=0.02
    )
    bar.set_label("task")
    bar.locator = MaxNLocator(integer=True)
    bar.update_ticks()
    return figure


FIGURE = PanelFigure("embedding", "Features after the last task (t-SNE)", embeddings)

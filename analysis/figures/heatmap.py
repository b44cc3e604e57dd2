"""The accuracy matrix A[after_task, on_task] as a heat map: one small square a method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import columns, multiples
from analysis.figures.panels import matrices
from analysis.figures.style import house_style
from analysis.metrics import Matrix

_SCALE = Normalize(0, 100)
_COLORS = "cividis"


@house_style()
def heat_maps(rows: pd.DataFrame) -> Figure:
    """One panel's maps, each the mean over its label's trials, on one scale from 0 to 100 %.

    An entry that a trial did not measure is blank.
    """
    means = {label: a.mean(0) for label, a in matrices(rows).items()}
    figure, axes = multiples(list(means), margin=1.25)
    across = columns(len(means))
    for place, (label, a) in enumerate(means.items()):
        _draw(axes[label], a)
        _tick(axes[label], len(a), left=place % across == 0, below=place + across >= len(means))
    figure.supxlabel("tested on task", fontsize=8)
    figure.supylabel("after task", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(_SCALE, _COLORS), ax=list(axes.values()), shrink=0.9, pad=0.02
    )
    bar.set_label("accuracy (%)")
    return figure


def _draw(axes: Axes, a: Matrix) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.imshow(np.ma.masked_invalid(a), norm=_SCALE, cmap=_COLORS, aspect="equal")


def _tick(axes: Axes, tasks: int, *, left: bool, below: bool) -> None:
    """Numbers from 1 at the first, middle and last task, on the outer maps alone."""
    places = sorted({0, (tasks - 1) // 2, tasks - 1})
    numbers = [str(place + 1) for place in places]
    axes.set_xticks(places, numbers if below else [""] * len(places))
    axes.set_yticks(places, numbers if left else [""] * len(places))


FIGURE = PanelFigure("heat_maps", "Accuracy matrices", lambda panel: heat_maps(panel.rows))

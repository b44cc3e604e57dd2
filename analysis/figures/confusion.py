"""Confusion matrices after the last task, one small square a method, classes as learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import multiples
from analysis.figures.panels import Panel
from analysis.figures.style import house_style

_SCALE = Normalize(0, 100)
_COLORS = "cividis"


@house_style()
def confusion_matrices(panel: Panel) -> Figure | None:
    """Percent of each class's images taken for each class; the mean over seeds."""
    found = {
        label: np.mean([shares(frame) for frame in seeds], axis=0)
        for label, seeds in panel.last_details("confusion").items()
    }
    if not found:
        return None
    figure, axes = multiples(list(found), margin=1.25)
    for label, matrix in found.items():
        plot = axes[label]
        plot.grid(visible=False)
        plot.spines[:].set_visible(True)
        plot.imshow(matrix, norm=_SCALE, cmap=_COLORS, aspect="equal")
        ends = sorted({0, (len(matrix) - 1) // 2, len(matrix) - 1})
        plot.set_xticks(ends, [str(end) for end in ends])
        plot.set_yticks(ends, [str(end) for end in ends])
    figure.supxlabel("predicted class, as learned", fontsize=8)
    figure.supylabel("true class", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(_SCALE, _COLORS), ax=list(axes.values()), shrink=0.9, pad=0.02
    )
    bar.set_label("share of the class (%)")
    return figure


def shares(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Percent of each true class (rows), from counts of `label`, `predicted`."""
    table = frame.pivot_table(
        index="label", columns="predicted", values="count", aggfunc="sum", fill_value=0
    )
    counts = table.to_numpy(dtype=float)
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


FIGURE = PanelFigure("confusion", "Confusion matrices after the last task", confusion_matrices)

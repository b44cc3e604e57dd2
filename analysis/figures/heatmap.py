"""The accuracy matrix A[after_task, on_task] as a heat map: one small square a method."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.panels import matrices
from analysis.figures.style import COLUMN_INCHES, PAGE_INCHES, house_style
from analysis.metrics import Matrix

_MAPS_A_COLUMN = 3
_MAPS_A_PAGE = 6
_TITLE_POINTS = 6
_TITLE_CHARACTERS_AN_INCH = 21  # in that size
_TITLE_LINE_INCHES = 0.12
_SCALE = Normalize(0, 100)
_COLORS = "cividis"


@house_style()
def heat_maps(rows: pd.DataFrame) -> Figure:
    """One panel's maps, each the mean over its label's trials, on one scale from 0 to 100 %.

    An entry that a trial did not measure is blank.
    """
    means = {label: a.mean(0) for label, a in matrices(rows).items()}
    across = min(len(means), _MAPS_A_PAGE)
    down = -(-len(means) // across)
    width = COLUMN_INCHES if across <= _MAPS_A_COLUMN else PAGE_INCHES
    side = (width - 1.25) / across  # the rest is for the axes' numbers and the colour bar
    found = {_title(label, side): a for label, a in means.items()}
    titles = _TITLE_LINE_INCHES * sum(_title_lines(list(found), across))
    figure = Figure(figsize=(width, 0.5 + down * side + titles))
    grid = figure.subplots(down, across, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(found):
            axes.set_axis_off()
            continue
        title, a = list(found.items())[place]
        _draw(axes, a, title)
        _tick(axes, len(a), left=place % across == 0, below=place + across >= len(found))
    figure.supxlabel("tested on task", fontsize=8)
    figure.supylabel("after task", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(_SCALE, _COLORS), ax=grid, shrink=0.9, aspect=14 * down, pad=0.02
    )
    bar.set_label("accuracy (%)")
    return figure


def _draw(axes: Axes, a: Matrix, title: str) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.set_title(title, fontsize=_TITLE_POINTS, pad=3)
    axes.imshow(np.ma.masked_invalid(a), norm=_SCALE, cmap=_COLORS, aspect="equal")


def _tick(axes: Axes, tasks: int, *, left: bool, below: bool) -> None:
    """Numbers from 1 at the first, middle and last task, on the outer maps alone."""
    places = sorted({0, (tasks - 1) // 2, tasks - 1})
    numbers = [str(place + 1) for place in places]
    axes.set_xticks(places, numbers if below else [""] * len(places))
    axes.set_yticks(places, numbers if left else [""] * len(places))
    axes.tick_params(length=2, pad=2)


def _title(label: str, inches: float) -> str:
    """The label in lines no wider than a map."""
    return "\n".join(textwrap.wrap(label, int(_TITLE_CHARACTERS_AN_INCH * inches)) or [label])


def _title_lines(titles: list[str], across: int) -> list[int]:
    """Lines of text above each row of maps."""
    lines = [title.count("\n") + 1 for title in titles]
    return [max(lines[start : start + across]) for start in range(0, len(lines), across)]

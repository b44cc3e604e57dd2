"""Small multiples: one small panel a label, as many side by side as a page takes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import COLUMN_INCHES, PAGE_INCHES

_A_COLUMN = 3
_A_PAGE = 6
_TITLE_POINTS = 6
_TITLE_CHARACTERS_AN_INCH = 21  # in that size
_TITLE_LINE_INCHES = 0.12


def multiples(
    labels: Sequence[str], *, ratio: float = 1.0, margin: float = 0.6, across: int = _A_PAGE
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each label, under the label as its title.

    Args:
        labels: all different, at least one.
        ratio: height of a panel over its width.
        margin: inches of the width that numbers and colour bars take.
        across: panels side by side at most.
    """
    abreast = columns(len(labels), across)
    rows = -(-len(labels) // abreast)
    width = COLUMN_INCHES if abreast <= min(_A_COLUMN, across) else PAGE_INCHES
    side = (width - margin) / abreast
    titles = {label: wrapped(label, side) for label in labels}
    lines = sum(
        max(title.count("\n") + 1 for title in list(titles.values())[start : start + abreast])
        for start in range(0, len(labels), abreast)
    )
    height = 0.5 + rows * side * ratio + lines * _TITLE_LINE_INCHES
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, abreast, squeeze=False)
    found: dict[str, Axes] = {}
    for place, axes in enumerate(grid.flat):
        if place >= len(labels):
            axes.set_axis_off()
            continue
        label = labels[place]
        axes.set_title(titles[label], fontsize=_TITLE_POINTS, pad=3)
        axes.tick_params(length=2, pad=2, labelsize=6)
        found[label] = axes
    return figure, found


def columns(count: int, across: int = _A_PAGE) -> int:
    """How many of `count` panels stand side by side."""
    return min(count, across)


def wrapped(label: str, inches: float) -> str:
    """The label in lines no wider than a panel."""
    return "\n".join(textwrap.wrap(label, int(_TITLE_CHARACTERS_AN_INCH * inches)) or [label])


def picture_axes(axes: Axes) -> None:
    """Make room for an image: no grid, no numbers, a frame around it."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.set_xticks([])
    axes.set_yticks([])

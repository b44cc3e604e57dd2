"""Attention maps after the last task: a row of images, and below it a row of maps a method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import picture_axes
from analysis.figures.panels import Panel
from analysis.figures.recalled import pixels
from analysis.figures.style import PAGE_INCHES, house_style

_IMAGES = 8
_LEFT_INCHES = 1.1
_SEE_THROUGH = 0.55


@house_style()
def attention_maps(panel: Panel) -> Figure | None:
    """Grad-CAM maps of the true class over the image, the first image of each task; first seed."""
    frames = {label: _first(seeds[0]) for label, seeds in panel.last_details("attention").items()}
    if not frames:
        return None
    known = next(iter(frames.values()))
    shown = known.iloc[_evenly(len(known))]
    side = (PAGE_INCHES - _LEFT_INCHES) / _IMAGES
    size = (_LEFT_INCHES + len(shown) * side, 1.08 * side * (len(frames) + 1) + 0.2)
    figure = Figure(figsize=size)
    grid = figure.subplots(len(frames) + 1, len(shown), squeeze=False)
    for axes, (_, record) in zip(grid[0], shown.iterrows(), strict=True):
        _show(axes, record)
        axes.set_title(f"task {record['task'] + 1}", fontsize=6, pad=2)
    grid[0][0].set_ylabel("image", rotation=0, ha="right", va="center", fontsize=6)
    for line, (label, frame) in zip(grid[1:], frames.items(), strict=True):
        by_image = frame.set_index("image")
        for axes, image in zip(line, shown["image"], strict=True):
            _show(axes, by_image.loc[image], map_too=True)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=6)
    return figure


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop_duplicates("task").sort_values("task")


def _evenly(count: int) -> list[int]:
    places = np.linspace(0, count - 1, min(_IMAGES, count)).round().astype(int)
    return [int(place) for place in places]


def _show(axes: Axes, record: pd.Series, *, map_too: bool = False) -> None:
    picture_axes(axes)
    axes.imshow(pixels(record["pixels"], record), cmap="gray", vmin=0, vmax=255)
    if map_too:
        sides = (int(record["height"]), int(record["width"]))
        found = np.asarray(record["map"], dtype=float).reshape(sides)
        axes.imshow(found, cmap="inferno", vmin=0, vmax=1, alpha=_SEE_THROUGH)


FIGURE = PanelFigure("attention", "Where the evidence for the true class is", attention_maps)

"""Recalled images beside the originals, after the last task; one strip a method and task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.multiples import picture_axes
from analysis.figures.panels import Panel
from analysis.figures.style import PAGE_INCHES, house_style

_TASKS = 6
"""Strips at most: of the first, the last, and evenly between them."""

_LEFT_INCHES = 1.1


@house_style()
def recalled_images(panel: Panel) -> Figure | None:
    """The first image of each class shown of a task; original above, recalled below."""
    found = panel.last_details("recalled")
    if not found:
        return None
    strips = {
        (label, task): frame
        for label, seeds in found.items()
        for task, frame in _some(seeds[0].groupby("task"))
    }
    across = max(len(frame) for frame in strips.values())
    side = min(0.6, (PAGE_INCHES - _LEFT_INCHES) / across)
    size = (_LEFT_INCHES + across * side, 2.25 * side * len(strips) + 0.1)
    figure = Figure(figsize=size)
    grid = figure.subplots(2 * len(strips), across, squeeze=False)
    for row, ((label, task), frame) in enumerate(strips.items()):
        for kind, line in zip(("original", "recalled"), grid[2 * row : 2 * row + 2], strict=True):
            for axes in line:
                axes.set_axis_off()
            for axes, (_, record) in zip(line, frame.iterrows(), strict=False):
                axes.set_axis_on()
                picture_axes(axes)
                axes.imshow(pixels(record[kind], record), cmap="gray", vmin=0, vmax=255)
            name = f"{label}\ntask {task + 1}" if kind == "original" else _bits(frame)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=6)
    return figure


def pixels(flat: Any, record: pd.Series[Any]) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - a list
    """(H, W) of a gray image, (H, W, 3) of one in colour; of four channels the first three."""
    shape = (int(record["channels"]), int(record["height"]), int(record["width"]))
    image = np.asarray(flat, dtype=np.uint8).reshape(shape)
    return image[0] if len(image) < 3 else image[:3].transpose(1, 2, 0)


def _bits(frame: pd.DataFrame) -> str:
    per_pixel = (frame["bits"] / (frame["height"] * frame["width"])).mean()
    return f"{per_pixel:.2f} bit/pixel"


def _some(groups: Any) -> list[tuple[int, pd.DataFrame]]:  # noqa: ANN401 - a grouped frame
    tasks = [(int(task), frame) for task, frame in groups]
    places = np.linspace(0, len(tasks) - 1, min(_TASKS, len(tasks))).round().astype(int)
    return [tasks[place] for place in places]


FIGURE = PanelFigure("recalled", "Originals above, recalled below", recalled_images)

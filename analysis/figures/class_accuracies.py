"""How evenly the classes are served after the last task: a box a method."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from analysis.figures.catalogue import PanelFigure
from analysis.figures.panels import Panel, looks_in
from analysis.figures.style import COLUMN_INCHES, house_style

_LINE_INCHES = 0.2


@house_style()
def class_accuracies(panel: Panel) -> Figure | None:
    """Accuracies of all classes and seeds: median, quartiles, and whiskers to both ends."""
    found = panel.last_details("class_accuracy")
    if not found:
        return None
    style, labels = looks_in(panel.rows, found), list(found)
    figure = Figure(figsize=(COLUMN_INCHES, 0.6 + _LINE_INCHES * len(labels)))
    axes = figure.subplots()
    values = [
        100 * np.concatenate([frame["accuracy"].to_numpy() for frame in found[label]])
        for label in labels
    ]
    boxes = axes.boxplot(
        values,
        orientation="horizontal",
        tick_labels=labels,
        whis=(0, 100),
        widths=0.6,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, label in zip(boxes["boxes"], labels, strict=True):
        box.set_facecolor(style[label].color)
        box.set_alpha(0.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy of a class (%)")
    return figure


FIGURE = PanelFigure("classes", "Accuracies of the classes after the last task", class_accuracies)

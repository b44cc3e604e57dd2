"""Final accuracy against seconds of training."""

from __future__ import annotations

from analysis.figures.catalogue import PanelFigure
from analysis.figures.tradeoff import tradeoff

FIGURE = PanelFigure(
    "accuracy_time",
    "Accuracy against training time",
    lambda panel: tradeoff(panel, "train_s", "seconds of training"),
)

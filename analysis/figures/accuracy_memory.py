"""Final accuracy against the bytes that a method holds (BrainCL's memory against accuracy)."""

from __future__ import annotations

from analysis.figures.catalogue import PanelFigure
from analysis.figures.tradeoff import tradeoff

FIGURE = PanelFigure(
    "accuracy_memory",
    "Accuracy against memory",
    lambda panel: tradeoff(panel, "held_MB", "MB held beside the network of finetuning"),
)

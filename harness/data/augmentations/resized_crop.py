"""The supervised views of ImageNet: a random resized crop, and a flip where the data set has one.

From 8 % of the area on, as torchvision's RandomResizedCrop and PyCIL's ImageNet transforms
(github.com/G-U-N/PyCIL, utils/data.py). Colours stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    gray_probability: float = 0.0
    scale: tuple[float, float] | None = (0.08, 1.0)


build = RandomViews

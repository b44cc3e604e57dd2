"""One set of views for every objective: CLA's (CoLLAs 2025), `common_transforms` of the code.

Resized crop, flip, jitter, grayscale; no blur (github.com/lefebvju/climb, src/transforms.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)


build = RandomViews

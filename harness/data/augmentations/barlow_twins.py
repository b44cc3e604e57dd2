"""The views of Barlow Twins released with CLIMB (CoLLAs 2026), the same as `common`.

Resized crop, flip, jitter, grayscale (github.com/lefebvju/climb, src/transforms.py). The original
(Zbontar et al., 2021, arXiv:2103.03230) blurs and solarises as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)


build = RandomViews

"""The views of BYOL released with CLIMB (CoLLAs 2026), which leave out the crop.

Flip, jitter, grayscale (github.com/lefebvju/climb, src/transforms.py). The original (Grill et al.,
2020, arXiv:2006.07733) crops, blurs and solarises as well; `crop: true` brings the crop back and
makes this set `common`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    crop: bool = False


build = RandomViews

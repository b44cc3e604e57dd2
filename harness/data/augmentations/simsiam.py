"""The views of SimSiam released with CLIMB (CoLLAs 2026): as `common`, with stronger saturation.

Resized crop, jitter, grayscale, flip (github.com/lefebvju/climb, src/transforms.py). The original
(Chen and He, 2021, arXiv:2011.10566) blurs large images too. The flip is drawn with the crop, which
makes the same views as a flip at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)


build = RandomViews

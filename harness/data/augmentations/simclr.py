"""The views of SimCLR and SCALE released with CLIMB (CoLLAs 2026), with the strongest jitter.

Resized crop, flip, jitter, grayscale, and above 64 pixels blur, there from crops of 8 % or more
(github.com/lefebvju/climb, src/transforms.py). SimCLR itself (Chen et al., 2020, arXiv:2002.05709,
appendix B.9) jitters CIFAR-10 at half its full strength: 0.4, 0.4, 0.4, 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.data import random_views
from harness.data.random_views import RandomViews


@dataclass(frozen=True, slots=True)
class Config(random_views.Config):
    jitter: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 0.2)
    scale: tuple[float, float] | None = None
    blur_probability: float = 0.2


build = RandomViews

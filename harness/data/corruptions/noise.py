"""Noise of a sensor: Gaussian, of photons (shot), and of dead or saturated pixels (impulse)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor

from harness.data.corruptions.pixels import on_bytes

_GAUSSIAN: Final = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation of values in [0, 1]
_SHOT: Final = (60, 25, 12, 5, 3)  # photons of a white pixel
_IMPULSE: Final = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of values


@on_bytes
def gaussian_noise(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Independent normal noise in every channel of every pixel."""
    drawn = torch.randn(x.shape, generator=rng).to(x.device)
    return x + _GAUSSIAN[severity - 1] * drawn


@on_bytes
def shot_noise(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """A Poisson number of photons in proportion to the value."""
    photons = _SHOT[severity - 1]
    return torch.poisson(x.cpu() * photons, generator=rng).to(x.device) / photons


@on_bytes
def impulse_noise(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Salt and pepper: a share of the values, in every channel by itself, becomes 0 or 1."""
    share = _IMPULSE[severity - 1]
    drawn = torch.rand(x.shape, generator=rng).to(x.device)
    return x.where(drawn >= share, (drawn < share / 2).float())

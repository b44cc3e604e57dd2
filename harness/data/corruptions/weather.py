"""Weather: snow, frost on the lens, fog, and bright light."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Generator, Tensor

from harness.data.corruptions.pixels import (
    SMALL,
    gray,
    on_bytes,
    scale,
    smeared,
    uniform,
    zoomed,
)

_SNOW: Final = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
"""Mean and deviation of the flakes' brightness, their size in pixels of 224, the least brightness
that shows, radius and sigma of their motion in pixels of 224, share of the image not whitened."""
_SNOW_SMALL: Final = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
)
"""Likewise, in pixels of the image."""
_FROST: Final = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Weights of the image and of the frost."""
_FOG: Final = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
"""Amount, and how fast the roughness falls with the scale."""
_FOG_SMALL: Final = ((1.5, 2), (2, 2), (2.5, 1.7), (2.75, 1.5), (3, 1.4))
_BRIGHTNESS: Final = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV


@on_bytes
def snow(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Falling flakes, and the same upside down, over a whitened image.

    Below 128 pixels, where flakes would be of about a pixel or less, the parameters are those of
    the authors' Tiny-ImageNet-C (create_c/make_tinyimagenet_c.py), in pixels of the image.
    """
    small = min(x.shape[-2:]) < SMALL
    factor = 1 if small else scale(x)
    parameters = (_SNOW_SMALL if small else _SNOW)[severity - 1]
    mean, deviation, size, least, radius, sigma, kept = parameters
    drawn = torch.randn(len(x), 1, *x.shape[-2:], generator=rng).to(x.device)
    flakes = mean + deviation * zoomed(drawn, size * factor)
    flakes = flakes.clamp(0, 1).where(flakes >= least, 0)
    degrees = uniform((len(x),), -135, -45, rng)
    length = 2 * radius * factor
    flakes = smeared(flakes, length=length, sigma=sigma * factor, degrees=degrees)
    white = torch.maximum(x, 1.5 * gray(x) + 0.5)
    return kept * x + (1 - kept) * white + flakes + flakes.flip(-2, -1)


@on_bytes
def frost(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Ice crystals over the image.

    Deviation: upstream lays crops of five photographs of frost over the images; here the crystals
    are drawn, as bright lines where fractal noise is at its middle, in patches, on black.
    """
    kept, added = _FROST[severity - 1]
    return kept * x + added * _crystals(x, rng).to(x.device)


def _crystals(x: Tensor, rng: Generator) -> Tensor:
    """Brightness from 0 to 1 of frost for images, (N, 1, H, W), on the CPU."""
    lines = [1 - (2 * plasma(x, 1.4, rng) - 1).abs() for _ in range(2)]
    ice = plasma(x, 1.6, rng)
    return (1.5 * torch.maximum(*lines) ** 12 * ice + 0.2 * ice**2).clamp(max=1)


@on_bytes
def fog(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """A bank of fog over the image; the sum is scaled to the brightness that the image had.

    Below 128 pixels the amount of severity 4 is our own, halfway between its neighbours; with the
    published one, that of severity 3, the squared errors of the two are equal.
    """
    amount, decay = (_FOG_SMALL if min(x.shape[-2:]) < SMALL else _FOG)[severity - 1]
    brightest = x.amax((1, 2, 3), keepdim=True)
    bank = plasma(x, decay, rng).to(x.device)
    return (x + amount * bank) * brightest / (brightest + amount)


def plasma(x: Tensor, decay: float, rng: Generator) -> Tensor:
    """Fractal noise from 0 to 1 for images, (N, 1, H, W), on the CPU: the diamond-square algorithm.

    On a square with sides that are joined, squares are halved again and again; a new point is the
    mean of its four neighbours and noise that falls by `decay` squared each time.
    """
    height, width = x.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()
    noise, step, amplitude = torch.zeros(len(x), side, side), side, 1.0
    while step > 1:
        half = step // 2
        corners, middles = noise[:, ::step, ::step], noise[:, half::step, half::step]
        spread = partial(uniform, tuple(corners.shape), -amplitude, amplitude, rng)
        pairs = corners + corners.roll(-1, 1)
        middles.copy_((pairs + pairs.roll(-1, 2)) / 4 + spread())
        above, beside = middles + middles.roll(1, 1), middles + middles.roll(1, 2)
        noise[:, ::step, half::step] = (above + corners + corners.roll(-1, 2)) / 4 + spread()
        noise[:, half::step, ::step] = (beside + pairs) / 4 + spread()
        step, amplitude = half, amplitude / decay**2
    low, high = noise.amin((1, 2), keepdim=True), noise.amax((1, 2), keepdim=True)
    return ((noise - low) / (high - low))[:, None, :height, :width]


@on_bytes
def brightness(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """The value of HSV, the largest channel, is raised; hue and saturation stay.

    All channels are thus multiplied alike, whatever their number. Black becomes gray.
    """
    del rng
    value = x.amax(1, keepdim=True)
    raised = (value + _BRIGHTNESS[severity - 1]).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=1e-6)), raised)

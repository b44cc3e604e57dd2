"""Blur: out of focus, through frosted glass, by a movement across, by a movement towards."""

from __future__ import annotations

from math import ceil
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from harness.data.augment import blur, gaussian_taps
from harness.data.corruptions.pixels import SMALL, on_bytes, scale, smeared, uniform, zoomed

_DEFOCUS: Final = (3, 4, 6, 8, 10)  # radius of the disc in pixels of 224
_GLASS: Final = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Sigma of the blur and largest shift, in pixels; how often all pixels are shifted."""
_MOTION: Final = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma; pixels of 224
_ZOOM: Final = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""The factors are `arange(1, end, step)`, as upstream; rounding lets in the first end, 1.11."""

_DISC_POINTS: Final = 64
"""Points across the disc; more change none of its weights by 1/255."""


@on_bytes
def defocus_blur(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """The mean over a disc around each pixel.

    Deviation: the image is read bilinearly there, so that discs smaller than a pixel have an
    effect; that takes the place of the upstream kernel's smoothing by a Gaussian of 0.1 to 0.5
    pixels.
    """
    del rng
    kernel = disc(_DEFOCUS[severity - 1] * scale(x)).to(x.device)
    half = len(kernel) // 2
    channels = F.pad(x, (half, half, half, half), mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(channels, kernel[None, None]).reshape(x.shape)


def disc(radius: float) -> Tensor:
    """Weights (K, K) of the pixels in the mean of a bilinear image over a disc, in pixels."""
    half = ceil(radius)
    line = (torch.arange(_DISC_POINTS, dtype=torch.float64) + 0.5) / _DISC_POINTS * 2 - 1
    inside = (line[:, None].square() + line.square() <= 1).double()
    pixels = torch.arange(-half, half + 1)
    shares = (1 - (line[:, None] * radius - pixels).abs()).relu()  # of a pixel in each point
    weights = shares.T @ inside @ shares
    return (weights / weights.sum()).float()


@on_bytes
def glass_blur(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Pixels change places with neighbours, between two Gaussian blurs.

    Lengths are in pixels of the image, whatever its size, as they can hardly be smaller. Below 128
    pixels the parameters are our own: sigma 0.4, shifts of one pixel, of an eighth of the pixels at
    the first severity and of twice as many at each further one. The last is that of the authors'
    CIFAR-10-C (create_c/make_cifar_c.py): all pixels, twice. Deviation: upstream visits the pixels
    row by row, here those that cannot meet change places at once.
    """
    sigma, reach, times = _GLASS[severity - 1]
    if min(x.shape[-2:]) < SMALL:
        sigma, reach, times = 0.4, 1, 2.0 ** (severity - 4)
    rounds = ceil(times)
    x = _gaussian(x, sigma)
    for _ in range(rounds):
        x = _shuffled(x, reach, times / rounds, rng)
    return _gaussian(x, sigma)


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    taps = gaussian_taps(torch.tensor([sigma], device=x.device), 2 * ceil(4 * sigma) + 1)
    return blur(x, taps)


def _shuffled(x: Tensor, reach: int, share: float, rng: Generator) -> Tensor:
    """A share of the pixels, but for a border, change places with one at most `reach` away.

    The pixels at the same place of square tiles, as wide as the shifts, go together: their
    partners all differ.
    """
    count, height, width = len(x), *x.shape[-2:]
    tile = 2 * reach
    source = torch.arange(height * width).repeat(count, 1)
    for place in range(tile**2):
        rows = torch.arange(reach + place // tile, height - reach + 1, tile)
        columns = torch.arange(reach + place % tile, width - reach + 1, tile)
        here = (rows[:, None] * width + columns).flatten().expand(count, -1)
        down, right = torch.randint(-reach, reach, (2, *here.shape), generator=rng)
        moved = torch.rand(here.shape, generator=rng) < share
        there = here + (down * width + right) * moved
        partner = source.gather(1, there)
        source.scatter_(1, there, source.gather(1, here)).scatter_(1, here, partner)
    source = source.to(x.device)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, source).view(x.shape)


@on_bytes
def motion_blur(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Smeared along a direction within 45 degrees of the rows, every image along its own."""
    radius, sigma = _MOTION[severity - 1]
    degrees = uniform((len(x),), -45, 45, rng)
    return smeared(x, length=2 * radius * scale(x), sigma=sigma * scale(x), degrees=degrees)


@on_bytes
def zoom_blur(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """The mean of the image and enlargements of its middle."""
    del rng
    end, step = _ZOOM[severity - 1]
    factors = torch.arange(1, end, step, dtype=torch.float64).tolist()
    total = x.clone()
    for factor in factors:
        total += zoomed(x, factor)
    return total / (len(factors) + 1)

"""Digital: low contrast, elastic distortion, large pixels, JPEG."""

from __future__ import annotations

from io import BytesIO
from math import ceil, pi
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from harness.data.augment import blur, gaussian_taps
from harness.data.corruptions.pixels import (
    SMALL,
    grid,
    on_bytes,
    pixel,
    read,
    scale,
    to_bytes,
    uniform,
)

_CONTRAST: Final = (0.4, 0.3, 0.2, 0.1, 0.05)  # factor
_PIXELATE: Final = (0.6, 0.5, 0.4, 0.3, 0.25)  # share of the side
_JPEG: Final = (25, 18, 15, 10, 7)  # quality

_ELASTIC: Final = (
    (0, 2.44, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)
"""Strength and sigma of the warp, largest shift of the corners, in pixels of 224."""
_ELASTIC_SMALL: Final = (
    (48.8, 9.76, 4.88),
    (73.2, 9.76, 4.88),
    (122, 9.76, 4.88),
    (170.8, 9.76, 4.88),
    (244, 9.76, 4.88),
)
"""Likewise, for images of fewer than 128 pixels."""


@on_bytes
def contrast(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Values come closer to the mean of their channel."""
    del rng
    means = x.mean((2, 3), keepdim=True)
    return torch.lerp(means, x, _CONTRAST[severity - 1])


@on_bytes
def pixelate(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Shrunk by a box filter and enlarged again: every pixel becomes the mean of its block."""
    del rng
    rows, columns = (_blocks(side, _PIXELATE[severity - 1]).to(x.device) for side in x.shape[-2:])
    return rows @ x @ columns.T


def _blocks(side: int, share: float) -> Tensor:
    """A matrix (side, side) that takes a line of pixels to the means of its blocks."""
    count = int(side * share)
    block = (2 * torch.arange(side) + 1) * count // (2 * side)  # in which its centre lies
    same = (block[:, None] == block).float()
    return same / same.sum(1, keepdim=True)


@on_bytes
def jpeg_compression(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """Written as JPEG and read again; images that are not of three channels, channel by channel."""
    del rng
    pictures = to_bytes(x).cpu()
    layers = pictures.movedim(1, -1) if x.shape[1] == 3 else pictures.flatten(0, 1)
    decoded = [_compressed(layer, _JPEG[severity - 1]) for layer in layers.numpy()]
    found = torch.from_numpy(np.stack(decoded))
    found = found.movedim(-1, 1) if x.shape[1] == 3 else found.view(x.shape)
    return found.to(x.device) / 255


def _compressed(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """One picture, (H, W, 3) or (H, W)."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return np.asarray(image)


@on_bytes
def elastic_transform(x: Tensor, severity: int, rng: Generator) -> Tensor:
    """A random affine map, and a warp by smoothed noise.

    The authors' first two severities are strong affine maps and their last three fine warps, so
    that the error falls from the second to the third. These are used from 128 pixels on. Below,
    where the fine warps would be noise of single pixels, the parameters are our own: one smooth
    warp whose mean square shift grows from that of the authors' third severity to that of their
    second, and the affine map of their last three. Deviations at all sizes: the shifts, not the
    strength, scale with the side, since the mean of more pixels is smaller; both maps are read at
    once; the first severity has no warp, which upstream is a shift of all pixels by about one.
    """
    factor = scale(x)
    table = _ELASTIC_SMALL if min(x.shape[-2:]) < SMALL else _ELASTIC
    strength, sigma, reach = table[severity - 1]
    # Of uniform noise, smoothed, in pixels of 224.
    shift = strength / (3**0.5 * 2 * pi**0.5 * sigma)
    warp = shift * factor * _smooth_noise(x, sigma * factor, rng).to(x.device)
    corners = uniform((len(x), 3, 2), -reach * factor, reach * factor, rng).to(x.device)
    at = grid(x) + warp * pixel(x)
    return read(x, at + _affine_shift(x, at, corners) * pixel(x), beyond="reflection")


def _smooth_noise(x: Tensor, sigma: float, rng: Generator) -> Tensor:
    """Shifts of mean square 1, (N, H, W, 2), on the CPU."""
    taps = gaussian_taps(torch.tensor([sigma]), 2 * ceil(3 * sigma) + 1)
    noise = blur(uniform((len(x), 2, *x.shape[-2:]), -1, 1, rng), taps)
    return noise.permute(0, 2, 3, 1) * (3**0.5 / taps.square().sum())


def _affine_shift(x: Tensor, at: Tensor, corners: Tensor) -> Tensor:
    """The shift, in pixels, at coordinates (N, H, W, 2) of a map given by those of three points.

    The points are three corners of a square around the middle, two thirds of the side wide.

    Args:
        x: The images.
        at: Coordinates as of `grid`.
        corners: Shifts (N, 3, 2) of the lower right, upper right and upper left, x before y.
    """
    right, down = (at / pixel(x) / (min(x.shape[-2:]) / 3)).unbind(-1)
    shares = torch.stack([down + 1, right - down, 1 - right], -1) / 2
    return torch.einsum("nhwk,nkd->nhwd", shares, corners)

"""What corruptions share: they change pixels in [0, 1] of images whose side sets the scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Final

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from harness.data.augment import LUMA

SEVERITIES: Final = (1, 2, 3, 4, 5)

Corruption = Callable[[Tensor, int, Generator], Tensor]
"""From images (N, C, H, W), a severity and a generator on the CPU to images of the same shape."""

SMALL: Final = 128
"""Below this side, in pixels, the finest structures of the paper would be about a pixel or less."""

_SMALLEST: Final = 8  # pixels a side; JPEG's blocks and the borders of blurs need as many


def on_bytes(change: Corruption) -> Corruption:
    """A change of float pixels in [0, 1] as one of uint8 images, on their device.

    All draws are made on the CPU, so that a seed gives the same images on every device, up to
    rounding.

    Raises:
        ValueError: if the severity is not 1 to 5 or a side is below 8 pixels.
    """

    @wraps(change)
    def changed(images: Tensor, severity: int, rng: Generator) -> Tensor:
        if severity not in SEVERITIES:
            raise ValueError(f"severity is a number from 1 to 5, got {severity}")
        if min(images.shape[-2:]) < _SMALLEST:
            height, width = images.shape[-2:]
            raise ValueError(f"corruptions need 8 pixels a side, got {height}x{width}")
        if not len(images):
            return images.clone()
        return to_bytes(change(images / 255, severity, rng))

    return changed


def to_bytes(x: Tensor) -> Tensor:
    """Pixels around [0, 1] as the nearest of 256 levels, uint8."""
    return x.mul(255).round_().clamp_(0, 255).byte()


def scale(x: Tensor) -> float:
    """Pixels of this image to one of ImageNet-C's 224."""
    return min(x.shape[-2:]) / 224


def gray(x: Tensor) -> Tensor:
    """Grey level (N, 1, H, W): the luma of three channels, else their mean."""
    if x.shape[1] != len(LUMA):
        return x.mean(1, keepdim=True)
    return torch.einsum("nchw,c->nhw", x, torch.tensor(LUMA, device=x.device))[:, None]


def uniform(shape: tuple[int, ...], low: float, high: float, rng: Generator) -> Tensor:
    """Numbers in [low, high), on the CPU."""
    return torch.rand(shape, generator=rng) * (high - low) + low


def grid(x: Tensor) -> Tensor:
    """Coordinates (1, H, W, 2) of the pixels, x before y: from -1, the first, to 1, the last."""
    height, width = x.shape[-2:]
    rows, columns = (torch.linspace(-1, 1, side, device=x.device) for side in (height, width))
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]


def pixel(x: Tensor) -> Tensor:
    """Width and height (2,) of a pixel in these coordinates."""
    height, width = x.shape[-2:]
    return torch.tensor([2 / (width - 1), 2 / (height - 1)], device=x.device)


def read(x: Tensor, at: Tensor, *, beyond: str) -> Tensor:
    """The images read, bilinearly, at coordinates as of `grid`.

    Args:
        x: Images (N, C, H, W).
        at: Where to read each pixel of the result, (N, H, W, 2), or (1, H, W, 2) for all images.
        beyond: What lies outside the image: "border", its outermost pixels, or "reflection".
    """
    at = at.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, at, padding_mode=beyond, align_corners=True)


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of the images enlarged, bilinearly, to their size."""
    return read(x, grid(x) / factor, beyond="border")


def smeared(x: Tensor, *, length: float, sigma: float, degrees: Tensor) -> Tensor:
    """Each image is smeared to one side along its own direction, as by ImageMagick's motion blur.

    The weights fall as a Gaussian of width `sigma` from the pixel itself to `length` away, both
    in pixels. Deviation: the points between are read bilinearly, a pixel or half a sigma apart,
    not rounded to pixels, so that lengths below a pixel have an effect.

    Args:
        x: Images (N, C, H, W).
        length: How far an image is smeared.
        sigma: Of the weights.
        degrees: The directions (N,), on the CPU; 0 is along the rows.
    """
    away = torch.arange(0, length + 1e-6, min(1.0, sigma / 2))
    weights = (-0.5 * (away / sigma).square()).softmax(0).tolist()
    angle = degrees.deg2rad()
    direction = torch.stack([angle.cos(), angle.sin()], -1)[:, None, None].to(x.device) * pixel(x)
    start, out = grid(x), torch.zeros_like(x)
    for distance, weight in zip(away.tolist(), weights, strict=True):
        out.add_(read(x, start + distance * direction, beyond="border"), alpha=weight)
    return out

"""Augmentations of whole batches: every image has random parameters of its own.

An augmentation takes raw uint8 images (B, C, H, W) and a generator on the CPU and returns
normalised float32 images on the device of the images. All parameters of a call are drawn on the
CPU, the same on every device, and sent along in one small tensor, so that no call waits for the
device. Functions that end in an underscore change their input, floats in [0, 255], in place.
Definitions are those of torchvision's transforms, except that the order of the colour operations
is drawn once a batch, not once an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Protocol, final

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from harness.data.base import Traits

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it
CROP_TRIES = 10  # torchvision's RandomResizedCrop


class Augmentation(Protocol):
    """uint8 (B, C, H, W) to normalised float32 of the same shape."""

    def __call__(self, x: Tensor, rng: Generator, /) -> Tensor: ...


@final
class Normalizer:
    """Pixels in [0, 255] to (pixel / 255 - mean) / std, by one multiplication and one addition."""

    def __init__(self, traits: Traits) -> None:
        mean, std = torch.tensor(traits.mean).double(), torch.tensor(traits.std).double()
        constants = torch.stack([1 / (255 * std), -mean / std]).float().view(2, -1, 1, 1)
        self._constants = {torch.device("cpu"): constants}

    def __call__(self, x: Tensor) -> Tensor:
        """Uint8 or float (B, C, H, W) to float32; the input stays as it is."""
        scale, shift = self._on(x.device)
        return x.float().mul_(scale).add_(shift) if x.dtype == torch.uint8 else x * scale + shift

    def in_place(self, x: Tensor) -> Tensor:
        """The same of float32 images that nobody needs any more."""
        scale, shift = self._on(x.device)
        return x.mul_(scale).add_(shift)

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._constants:
            with torch.inference_mode(False):  # or training could not use them later
                self._constants[device] = self._constants[torch.device("cpu")].to(device)
        return self._constants[device]


def send(columns: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Parameters (B,), drawn on the CPU, on the device: one copy, which the host does not await."""
    table = torch.stack([column.to(dtype) for column in columns])
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    return list(table.to(device).unbind(0))


def shifted(x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, *, mode: str) -> Tensor:
    """Windows of the size of the image, whose upper left corner is at (top, left) of the image.

    Args:
        x: Images (B, C, H, W).
        top: Row of the corner (B,), int64, negative above the image.
        left: Column of the corner (B,), int64.
        mirrored: Whether the window is then mirrored (B,).
        mode: What lies outside the image: "constant", zeros, or "reflect".
    """
    height, width = x.shape[-2:]
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device)
    columns = left[:, None] + columns.where(~mirrored[:, None], width - 1 - columns)
    near = [_inside(at, side, mode) for at, side in ((rows, height), (columns, width))]
    pixels = (near[0][:, :, None] * width + near[1][:, None, :]).flatten(1)
    out = x.flatten(2).gather(2, pixels[:, None].expand(-1, x.shape[1], -1)).view(x.shape)
    if mode == "reflect":
        return out
    valid = (near[0] == rows)[:, :, None] & (near[1] == columns)[:, None, :]
    return out.mul_(valid[:, None])


def _inside(at: Tensor, side: int, mode: str) -> Tensor:
    """Pixel numbers brought into 0 to side - 1 by reflection at the border pixels, or clamped."""
    return (
        (side - 1) - ((side - 1) - at.abs()).abs() if mode == "reflect" else at.clamp(0, side - 1)
    )


def crop_boxes(
    draws: Tensor,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """Boxes (B, 4), top, left, height, width, of torchvision's RandomResizedCrop.

    The first of ten tries that fits into the image, else the largest central box of a valid ratio.

    Args:
        draws: Uniforms (B, 22): areas and ratios of the tries, then top and left.
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        scale: Least and largest share of the image's area.
        ratio: Least and largest width / height, drawn log-uniformly.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, :CROP_TRIES])
    exponent = draws[:, CROP_TRIES : 2 * CROP_TRIES]
    aspect = (log(ratio[0]) + (log(ratio[1]) - log(ratio[0])) * exponent).exp()
    wide, high = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.byte().argmax(1, keepdim=True)
    found = fits.any(1)
    central_ratio = min(max(width / height, ratio[0]), ratio[1])
    full_height = min(height, round(width / central_ratio))
    full_width = min(width, round(height * central_ratio))
    high = high.gather(1, first)[:, 0].where(found, full_height)
    wide = wide.gather(1, first)[:, 0].where(found, full_width)
    at = draws[:, 2 * CROP_TRIES :].where(found[:, None], 0.5)
    top = (at[:, 0] * (height - high + found)).floor()
    left = (at[:, 1] * (width - wide + found)).floor()
    return torch.stack([top, left, high, wide], 1)


def resized_crop(x: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Crop boxes (B, 4) from float images, resize them bilinearly to the images' size, mirror.

    A box is never larger than the image, so antialiasing would change nothing. The interpolation
    is a product with one matrix for the rows and one for the columns of each image.
    """
    top, left, high, wide = boxes.unbind(1)
    height, width = x.shape[-2:]
    rows = _interpolation(top, high, torch.zeros_like(mirrored), height)
    columns = _interpolation(left, wide, mirrored, width)
    with torch.autocast(x.device.type, enabled=False):
        return rows[:, None] @ torch.bmm(x.flatten(1, 2), columns.mT).view(x.shape)


def _interpolation(start: Tensor, length: Tensor, mirrored: Tensor, side: int) -> Tensor:
    """Weights (B, side, side): pixel i of the output is the sum over j of w[i, j] pixel j.

    The centres of the output's pixels lie evenly in [start, start + length); beyond the centres
    of the outermost pixels of the box, its border is repeated.
    """
    start, length, pixels = start[:, None], length[:, None], torch.arange(side, device=start.device)
    share = (pixels + 0.5) / side
    share = (1 - share).where(mirrored[:, None], share)
    at = (start + share * length - 0.5).clamp(start, start + length - 1)
    return (at[:, :, None] - pixels).abs_().neg_().add_(1).relu_()


def brightness_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the pixels; factors (B,)."""
    return x.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 255)


def contrast_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance from the image's mean grey level; factors (B,)."""
    means = x.mean((2, 3))
    grey = _gray(means)[:, None] if x.shape[1] == 3 else means.mean(1, keepdim=True)
    factor = factor.view(-1, 1, 1, 1)  # no lerp: twice as slow for one grey level an image
    return x.mul_(factor).add_(grey[:, :, None, None] * (1 - factor)).clamp_(0, 255)


def saturation_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance from the pixel's grey level, 0 for a gray image; factors (B,)."""
    return torch.lerp(_gray(x)[:, None], x, factor.view(-1, 1, 1, 1), out=x).clamp_(0, 255)


def _gray(x: Tensor) -> Tensor:
    """Grey level (B, ...) of colours (B, 3, ...)."""
    red, green, blue = x.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def hue_(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV, keeping value and saturation; turns (B,), 1 is once around.

    In units of a turn a channel is low + chroma * (6 d - 1), where d, in [1/6, 1/3], is how far
    the hue is from the channel's opposite; 2 - 6 d if from the channel itself. Comparisons are
    signs and choices are interpolations, which CPUs do several values at a time.
    """
    red, green, blue = x.unbind(1)
    low, high = x.amin(1), x.amax(1)
    chroma = high - low
    sixths = torch.lerp(
        (blue - red).add_(chroma, alpha=2),
        (red - green).add_(chroma, alpha=4),
        (high - green).sign_(),  # 0 where green is the highest, else 1
    )
    sixths = torch.lerp(green - blue, sixths, (high - red).sign_())
    # Where a pixel is gray, its hue is of no consequence: chroma 0 multiplies it below.
    start = turns.remainder(1).add_(1).view(-1, 1, 1)  # above 1/6, which keeps the sum positive
    hue = start.addcdiv(sixths, chroma.clamp(min=1e-6), value=1 / 6).frac_()
    away, near = low - chroma, low.add_(chroma, alpha=2)
    distance = (hue - 1 / 2).abs_().clamp_(1 / 6, 1 / 3)
    torch.addcmul(away, chroma, distance, value=6, out=red)
    for channel, at in ((green, 1 / 3), (blue, 2 / 3)):
        torch.sub(hue, at, out=distance).abs_().clamp_(1 / 6, 1 / 3)
        torch.addcmul(near, chroma, distance, value=-6, out=channel)
    return x


JITTER: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    brightness_,
    contrast_,
    saturation_,
    hue_,
)


def gaussian_taps(sigma: Tensor, size: int) -> Tensor:
    """Weights (B, size) of a Gaussian of width sigma (B,), in pixels, that sum to 1."""
    offsets = torch.arange(size, device=sigma.device) - size // 2
    return (-0.5 * (offsets / sigma[:, None]).square()).softmax(1)


def blur(x: Tensor, taps: Tensor) -> Tensor:
    """Filter columns and rows of each image by its own taps (B, K); the border is reflected."""
    half = taps.shape[1] // 2
    x = F.pad(x, (half, half, half, half), mode="reflect")
    for dim in (2, 3):
        side = x.shape[dim] - 2 * half
        parts = [x.narrow(dim, k, side) for k in range(taps.shape[1])]
        x = torch.zeros_like(parts[0])
        for part, tap in zip(parts, taps.unbind(1), strict=True):
            x.addcmul_(part, tap.view(-1, 1, 1, 1))
    return x

"""Random views of images for self-supervised learning: crop, flip, colour jitter, grayscale, blur.

The engine of the sets in `harness.data.augmentations` that follow SimCLR (Chen et al., 2020,
arXiv:2002.05709); a set is a `Config` with other defaults. They are those released with CLIMB
(CoLLAs 2026, github.com/lefebvju/climb, src/transforms.py), from which the views deviate in this:
every image has parameters of its own unless `aug_per_sample` is off; images are mirrored only if
their data set declares it; all sets work on pixels, none on normalised values (the released
SimSiam and Barlow Twins sets clamp those to [0, 1]).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from harness.data.augment import (
    CROP_TRIES,
    JITTER,
    Normalizer,
    blur,
    crop_boxes,
    gaussian_taps,
    resized_crop,
    saturation_,
    send,
)
from harness.data.base import Traits

SMALL_IMAGE = 64
"""Images of at most this side, in pixels, are never blurred (github.com/lefebvju/climb)."""


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the views.

    Attributes:
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: that an image is jittered, in a random order of the four.
        gray_probability: that an image loses its colours.
        crop: whether to crop at random and resize to the image's size.
        scale: range of the crop's share of the area; None is (0.2, 1) up to 64 pixels and
            (0.08, 1) above.
        ratio: range of the crop's width / height.
        blur_kernel: side of the blur's window in pixels, odd.
        blur_sigma: range of the blur's width in pixels.
        blur_probability: that an image is blurred if it has more than 64 pixels a side.
        aug_per_sample: draw parameters for every image; False draws them once for a batch, as the
            released code does.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    crop: bool = True
    scale: tuple[float, float] | None = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    blur_kernel: int = 5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: float = 0.0
    aug_per_sample: bool = True

    def __post_init__(self) -> None:
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(f"jitter is 0 or more, that of hue at most 0.5, got {self.jitter}")
        for name in ("jitter_probability", "gray_probability", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a number from 0 to 1, got {getattr(self, name)}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel is an odd number of pixels, got {self.blur_kernel}")
        for name in ("scale", "ratio", "blur_sigma"):
            span: tuple[float, float] | None = getattr(self, name)
            if span is not None and not 0 < span[0] <= span[1]:
                raise ValueError(f"{name} is a range above 0, got {span}")


@final
class RandomViews:
    """Resized crop, flip if the data set declares it, colour jitter, grayscale, blur if large."""

    def __init__(self, config: Config, traits: Traits, image_shape: tuple[int, int, int]) -> None:
        self._config = config
        self._normalize = Normalizer(traits)
        self._flip = traits.flip
        self._colour = image_shape[0] == 3
        large = max(image_shape[1:]) > SMALL_IMAGE
        self._blur = large and config.blur_probability > 0
        self._scale = config.scale or ((0.08, 1.0) if large else (0.2, 1.0))

    def __call__(self, x: Tensor, rng: Generator, /) -> Tensor:
        rows = len(x) if self._config.aug_per_sample else min(1, len(x))
        draws = torch.rand(rows, 2 * CROP_TRIES + 11, generator=rng, dtype=torch.float64)
        order = torch.randperm(4, generator=rng).tolist()
        draws = draws.expand(len(x), -1)
        mirrored = (draws[:, 2 * CROP_TRIES + 2] < 0.5) & self._flip
        boxes = self._boxes(draws[:, : 2 * CROP_TRIES + 2], x.shape[-2:])
        factors = self._factors(draws[:, 2 * CROP_TRIES + 3 :])
        sent = send([mirrored, *boxes, *factors], x.device, torch.float32)
        turned, boxes, factors = sent[0] > 0.5, sent[1 : 1 + len(boxes)], sent[1 + len(boxes) :]
        if boxes:
            x = resized_crop(x.float(), torch.stack(boxes, 1), turned)
        else:
            x = torch.where(turned[:, None, None, None], x.flip(-1), x).float()
        return self._normalize.in_place(self._recolour(x, order, factors))

    def _boxes(self, draws: Tensor, size: Sequence[int]) -> list[Tensor]:
        """Top, left, height and width of the crops, each (B,), from uniforms; none: no crop."""
        if not self._config.crop:
            return []
        height, width = size
        scale, ratio = self._scale, self._config.ratio
        boxes = crop_boxes(draws, height=height, width=width, scale=scale, ratio=ratio)
        return list(boxes.unbind(1))

    def _factors(self, draws: Tensor) -> list[Tensor]:
        """Factors of the colour operations, each (B,), and taps of the blur, from (B, 8)."""
        jittered, *strengths, gray, blurred, sigma = draws.unbind(1)
        config = self._config
        factors: list[Tensor] = []
        for u, strength, neutral in zip(strengths, config.jitter, (1, 1, 1, 0), strict=True):
            low = max(0.0, 1 - strength) if neutral else -strength
            drawn = low + (neutral + strength - low) * u
            factors.append(drawn.where(jittered < config.jitter_probability, neutral))
        factors.append((gray >= config.gray_probability).double())
        if self._blur:
            low, high = config.blur_sigma
            taps = gaussian_taps(low + (high - low) * sigma, config.blur_kernel)
            identity = F.one_hot(torch.tensor(config.blur_kernel // 2), config.blur_kernel)
            kept = blurred[:, None] < config.blur_probability
            factors.extend(taps.where(kept, identity).unbind(1))
        return factors

    def _recolour(self, x: Tensor, order: Sequence[int], factors: Sequence[Tensor]) -> Tensor:
        for operation in order:
            if self._config.jitter[operation] and (self._colour or operation < 2):
                JITTER[operation](x, factors[operation])
        if self._colour and self._config.gray_probability:
            saturation_(x, factors[4])
        return blur(x, torch.stack(list(factors[5:]), 1)) if self._blur else x

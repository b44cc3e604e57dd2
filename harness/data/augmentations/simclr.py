"""SimCLR's random views (Chen et al., 2020, arXiv:2002.05709), with parameters for every image.

Resized crop, flip if the data set declares it, colour jitter, grayscale, blur for large images.
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


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the views.

    `jitter` holds the strengths of brightness, contrast, saturation and hue: SimCLR's at half its
    full strength, which it uses for CIFAR-10 (appendix B.9). `scale` is the range
    of the crop's share of the area; None is (0.2, 1) up to 64 pixels and (0.08, 1) above, where
    alone images are blurred (github.com/lefebvju/climb). `blur_kernel` (odd) and `blur_sigma` are
    in pixels.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    blur_kernel: int = 5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: float = 0.2


@final
class SimCLR:
    """Resized crop, flip if the data set declares it, colour jitter, grayscale, blur if large."""

    def __init__(self, config: Config, traits: Traits, image_shape: tuple[int, int, int]) -> None:
        self._config = config
        self._normalize = Normalizer(traits)
        self._flip = traits.flip
        self._colour = image_shape[0] == 3
        self._blur = max(image_shape[1:]) > 64
        self._scale = config.scale or ((0.08, 1.0) if self._blur else (0.2, 1.0))

    def __call__(self, x: Tensor, rng: Generator, /) -> Tensor:
        columns = 2 * CROP_TRIES + 11
        draws = torch.rand(len(x), columns, generator=rng, dtype=torch.float64)
        order = torch.randperm(4, generator=rng).tolist()
        boxes, mirrored = self._crops(draws[:, : 2 * CROP_TRIES + 3], x.shape[-2:])
        factors = self._factors(draws[:, 2 * CROP_TRIES + 3 :])
        sent = send([*boxes.unbind(1), mirrored, *factors], x.device, torch.float32)
        x = resized_crop(x.float(), torch.stack(sent[:4], 1), sent[4] > 0.5)
        return self._normalize.in_place(self._recolour(x, order, sent[5:]))

    def _crops(self, draws: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Boxes (B, 4) and which images are mirrored (B,), from uniforms (B, 2 tries + 3)."""
        height, width = size
        scale, ratio = self._scale, self._config.ratio
        boxes = crop_boxes(draws[:, :-1], height=height, width=width, scale=scale, ratio=ratio)
        return boxes, (draws[:, -1] < 0.5) & self._flip

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


build = SimCLR

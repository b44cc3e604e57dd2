"""The data set's random crop and flip, where it declares them; the identity where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, Tensor

from harness.data.augment import Normalizer, send, shifted
from harness.data.base import Traits


@dataclass(frozen=True, slots=True)
class Config:
    pass


@final
class Standard:
    """The data set's random crop and flip, where it declares them."""

    def __init__(self, config: Config, traits: Traits, image_shape: tuple[int, int, int]) -> None:
        del config, image_shape
        self._normalize = Normalizer(traits)
        self._traits = traits

    def __call__(self, x: Tensor, rng: Generator, /) -> Tensor:
        padding, flip = self._traits.crop_padding, self._traits.flip
        if padding or flip:
            top, left, mirror = torch.rand(len(x), 3, generator=rng, dtype=torch.float64).unbind(1)
            corner = [(u * (2 * padding + 1)).floor() - padding for u in (top, left)]
            mirrored = (mirror < 0.5) & flip
            top, left, mirrored = send([*corner, mirrored], x.device, torch.int64)
            x = shifted(x, top, left, mirrored.bool(), mode=self._traits.crop_mode)
        return self._normalize(x)


build = Standard

"""No augmentation: images are normalised and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Generator, Tensor

from harness.data.augment import Normalizer
from harness.data.base import Traits


@dataclass(frozen=True, slots=True)
class Config:
    pass


@final
class Plain:
    """Normalises and does nothing else."""

    def __init__(self, config: Config, traits: Traits, image_shape: tuple[int, int, int]) -> None:
        del config, image_shape
        self._normalize = Normalizer(traits)

    def __call__(self, x: Tensor, rng: Generator, /) -> Tensor:
        del rng
        return self._normalize(x)


build = Plain

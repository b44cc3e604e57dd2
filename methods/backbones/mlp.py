"""A multilayer perceptron on flattened images, the classic network of small benchmarks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from methods.base import Backbone


@dataclass(frozen=True, slots=True)
class Config:
    hidden: tuple[int, ...] = (100, 100)  # two layers of 100: Mammoth's MNIST network


class MLP(Backbone):
    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if not config.hidden or min(config.hidden) < 1:
            raise ValueError(f"backbone mlp: `hidden` needs layers of 1 or more: {config.hidden}")
        widths = [prod(image_shape), *config.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.feature_dim = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


build = MLP

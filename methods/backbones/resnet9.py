"""ResNet-9: eight 3x3 convolutions, two residual pairs among them, and three max-poolings.

Of CLIMB's released code (CoLLAs 2026, github.com/lefebvju/climb, src/backbones/custom_resnets.py),
where `width` 128 is the wide one and 20 the slim one. Images of at least 8 pixels a side. The
global maximum shares its gradient among equal pixels, which is deterministic on GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from methods.base import Backbone


@dataclass(frozen=True, slots=True)
class Config:
    width: int = 64


class ResNet9(Backbone):
    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        base = config.width
        if base < 1:
            raise ValueError(f"backbone resnet9: `width` must be positive, got {base}")
        if min(height, width) < 8:
            raise ValueError(f"backbone resnet9: no {height}x{width} images, at least 8x8")
        self.stem = nn.Sequential(_block(channels, base), _block(base, 2 * base, pool=True))
        self.first = nn.Sequential(_block(2 * base, 2 * base), _block(2 * base, 2 * base))
        self.middle = nn.Sequential(
            _block(2 * base, 4 * base, pool=True), _block(4 * base, 8 * base, pool=True)
        )
        self.second = nn.Sequential(_block(8 * base, 8 * base), _block(8 * base, 8 * base))
        self.feature_dim = 8 * base

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.middle(self.first(x) + x)
        return (self.second(x) + x).amax((2, 3))


def _block(before: int, after: int, *, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


build = ResNet9

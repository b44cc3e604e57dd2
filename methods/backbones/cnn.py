"""A plain convolutional network for CPUs: one 3x3 convolution a width, halving the image between.

Images of at least 2 ** (number of widths - 1) pixels a side; global average pooling at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from methods.base import Backbone


@dataclass(frozen=True, slots=True)
class Config:
    widths: tuple[int, ...] = (24, 48, 96, 192)


class CNN(Backbone):
    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        if not config.widths or min(config.widths) < 1:
            raise ValueError(f"backbone cnn: `widths` needs layers of 1 or more: {config.widths}")
        if min(height, width) < 2 ** (len(config.widths) - 1):
            raise ValueError(
                f"backbone cnn: {len(config.widths)} widths do not suit {height}x{width} images"
            )
        layers: list[nn.Module] = []
        for i, out in enumerate(config.widths):
            if i:
                layers.append(nn.MaxPool2d(2))
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.feature_dim = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


build = CNN

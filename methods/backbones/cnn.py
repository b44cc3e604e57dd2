"""A plain convolutional network for CPUs: one 3x3 convolution a width, halving the image between.

Images of at least 2 ** (number of widths - 1) pixels a side; global average pooling at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods.base import StagedBackbone


@dataclass(frozen=True, slots=True)
class Config:
    widths: tuple[int, ...] = (24, 48, 96, 192)


class CNN(StagedBackbone):
    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        if not config.widths or min(config.widths) < 1:
            raise ValueError(f"backbone cnn: `widths` needs layers of 1 or more: {config.widths}")
        if min(height, width) < 2 ** (len(config.widths) - 1):
            raise ValueError(
                f"backbone cnn: {len(config.widths)} widths do not suit {height}x{width} images"
            )
        self.stem = nn.Identity()
        self.stages = nn.ModuleList()
        for i, out in enumerate(config.widths):
            halving = [nn.MaxPool2d(2)] if i else []
            convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False)
            self.stages.append(
                nn.Sequential(*halving, convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
            )
            channels = out
        self.stage_channels = config.widths
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.feature_dim = channels


build = CNN

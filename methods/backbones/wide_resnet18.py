"""A ResNet-18 of double width, with a 3x3 stem for images of at most 64 pixels.

As in CLIMB's released code (CoLLAs 2026, github.com/lefebvju/climb, src/backbones).
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.parts.resnets import SlimResNet, resnet18_of_width


@dataclass(frozen=True, slots=True)
class Config:
    zero_init_residual: bool = True


def build(config: Config, image_shape: tuple[int, int, int]) -> SlimResNet:
    """A ResNet-18 with 1024 features: 128 channels in the first stage."""
    return resnet18_of_width(128, image_shape, zero_init_residual=config.zero_init_residual)

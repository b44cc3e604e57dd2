"""Mammoth's ResNet-18 (Buzzega et al., 2020, arXiv:2004.07211), which EDD's comparison uses.

For small images: 3x3 stem of stride 1 without max-pooling, at 64 pixels as well; four stages of two
basic blocks; PyTorch's initial weights (github.com/aimagelab/mammoth, backbone/ResNetBlock.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.parts.resnets import SlimResNet


@dataclass(frozen=True, slots=True)
class Config:
    width: int = 64  # channels of the first stage; GEM's reduced network has 20


def build(config: Config, image_shape: tuple[int, int, int]) -> SlimResNet:
    """A ResNet-18 with 8 * `width` features."""
    return SlimResNet((2, 2, 2, 2), config.width, image_shape[0])

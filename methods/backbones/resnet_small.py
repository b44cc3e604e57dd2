"""A slim ResNet for CPUs: `blocks` basic blocks a stage, `width` channels in the first.

The defaults, one block in each of four stages from 16 channels, give 128 features.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.parts.resnets import SlimResNet


@dataclass(frozen=True, slots=True)
class Config:
    width: int = 16
    blocks: tuple[int, ...] = (1, 1, 1, 1)


def build(config: Config, image_shape: tuple[int, int, int]) -> SlimResNet:
    """A slim ResNet with `width` * 2 ** (stages - 1) features."""
    if config.width < 1 or not config.blocks or min(config.blocks) < 1:
        raise ValueError(f"backbone resnet_small: `width` and `blocks` must be positive: {config}")
    return SlimResNet(config.blocks, config.width, image_shape[0])

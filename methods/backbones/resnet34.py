"""torchvision's ResNet-34, with a 3x3 stem and no max-pooling for images of at most 64 pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torchvision.models import resnet34

from methods.parts.resnets import TorchvisionResNet


@dataclass(frozen=True, slots=True)
class Config:
    zero_init_residual: bool = True  # github.com/lefebvju/climb, src/backbones/__init__.py


def build(config: Config, image_shape: tuple[int, int, int]) -> TorchvisionResNet:
    """A ResNet-34 with 512 features."""
    return TorchvisionResNet(resnet34(zero_init_residual=config.zero_init_residual), image_shape)

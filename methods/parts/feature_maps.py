"""The maps between the stages of a convolutional network, and their shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.base import Backbone, StagedBackbone
from methods.learners import evaluating

Shape = tuple[int, int, int]
"""(C, H, W) of a map or an image."""


def staged(backbone: Backbone) -> StagedBackbone:
    """The same network, known to have stages (`requirements.require_stages`)."""
    assert isinstance(backbone, StagedBackbone)
    return backbone


def feature_maps(
    net: StagedBackbone, x: Tensor, after_stem: nn.Module | None = None
) -> list[Tensor]:
    """The maps (B, C_i, H_i, W_i) behind each stage, of normalised images (B, C, H, W).

    `after_stem` stands between the stem and the first stage.
    """
    h = net.stem(x) if after_stem is None else after_stem(net.stem(x))
    maps: list[Tensor] = []
    for stage in net.stages:
        h = stage(h)
        maps.append(h)
    return maps


@torch.no_grad()
def map_shapes(
    net: StagedBackbone, image_shape: Shape, after_stem: nn.Module | None = None
) -> list[Shape]:
    """The shape behind each stage, found by one image of zeros; the meta device will do."""
    images = torch.zeros((1, *image_shape), device=next(net.parameters()).device)
    with evaluating(net):
        maps = feature_maps(net, images, after_stem)
    return [(found.shape[1], found.shape[2], found.shape[3]) for found in maps]

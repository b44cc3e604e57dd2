"""Grad-CAM: where in an image the evidence for a class is (Selvaraju et al., ICCV 2017).

The channels of a feature map are weighted by the mean gradient of the class's score with respect
to them (equation 1 there) and added; what speaks against the class is cut off (equation 2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import StagedBackbone


def grad_cam(maps: Tensor, scores: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """Maps of evidence (B, h, w), none of them negative, without gradients.

    Args:
        maps: of features, (B, C, h, w).
        scores: from such maps to the scores of classes, (B, num_classes).
        y: the classes asked for, int64 (B,).
    """
    with torch.enable_grad():
        maps = maps.detach().requires_grad_()
        chosen = scores(maps).gather(1, y[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return F.relu((weights * maps.detach()).sum(1))


def last_maps(backbone: StagedBackbone, x: Tensor) -> Tensor:
    """The maps (B, C, h, w) behind the last stage, of normalised images, without gradients."""
    with torch.no_grad():
        x = backbone.stem(x)
        for stage in backbone.stages:
            x = stage(x)
        return x

"""The regular simplex as a classifier that is never trained: as many corners as classes."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn


def regular_simplex(corners: int) -> Tensor:
    """Unit vectors from the centre of a regular simplex to its corners, in columns.

    Any two of them have the cosine -1 / (corners - 1), the least that so many can have in common.

    Args:
        corners: at least 2.

    Returns:
        float32 (corners - 1, corners).

    Raises:
        ValueError: for fewer.
    """
    if corners < 2:
        raise ValueError(f"a simplex has 2 corners or more, got {corners}")
    dim = corners - 1
    # The ends of the axes are all sqrt(2) apart, and so is this point on their diagonal from each.
    apex = torch.full((dim, 1), (1 - sqrt(1 + dim)) / dim, dtype=torch.float64)
    columns = torch.cat([torch.eye(dim, dtype=torch.float64), apex], dim=1)
    columns = columns - columns.mean(1, keepdim=True)
    return (columns / columns.norm(dim=0)).float()


class SimplexClassifier(nn.Module):
    """From vectors (B, classes - 1) to their products with the corners of a simplex (B, classes).

    The corners follow from the number of classes, so that a checkpoint does not hold them.
    """

    corners: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("corners", regular_simplex(classes), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.corners

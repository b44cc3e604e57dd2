"""Barlow Twins (Zbontar et al., 2021, arXiv:2103.03230): make the views' correlation the identity.

As in the online comparisons of CLA (Cignoni et al., CoLLAs 2025) and CLIMB (CoLLAs 2026): the loss
is scaled by `scale`, and the projector ends without the normalisation that the loss brings along.
Deviation from their released code: the projector's last layer has no bias, where they freeze it at
its random first value. The loss is the same, since it subtracts the mean of every column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Backbone, Embeddings, Objective
from methods.parts.heads import projector


@dataclass(frozen=True, slots=True)
class Config:
    redundancy_weight: float = 5e-3  # the paper's lambda, section 2.2
    scale: float = 0.1  # CLA's released code
    projection_dim: int = 2048


def barlow_loss(z1: Tensor, z2: Tensor, redundancy: float) -> Tensor:
    """How far the cross-correlation of two (B, D) is from the identity (eq. 1 and 2), a scalar.

    A column that is constant in the batch correlates with nothing: its variance is raised by the
    epsilon of batch normalisation.
    """
    standard = [F.batch_norm(z, None, None, training=True) for z in (z1, z2)]
    correlation = standard[0].T @ standard[1] / len(z1)
    error = (correlation - torch.eye(len(correlation), device=z1.device, dtype=z1.dtype)).square()
    # All entries at the weight of those off the diagonal, and the rest of the diagonal's weight.
    return redundancy * error.sum() + (1 - redundancy) * error.diagonal().sum()


class BarlowTwins(Objective):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.projection_dim = config.projection_dim
        self.projector = projector(backbone.feature_dim, config.projection_dim, last_norm=False)

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        del rng
        features, projections = self.encode(backbone, views)
        z1, z2 = projections
        return Embeddings(self._loss(z1, z2), features, projections)

    def alignment(self, predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """The loss between predictions and targets of the same view, the mean over views."""
        pairs = zip(predicted, target, strict=True)
        return torch.stack([self._loss(p, z) for p, z in pairs]).mean()

    def _loss(self, z1: Tensor, z2: Tensor) -> Tensor:
        return self.config.scale * barlow_loss(z1, z2, self.config.redundancy_weight)


build = BarlowTwins

"""SimCLR (Chen et al., 2020, arXiv:2002.05709): two views of an image attract, others repel.

The projector has three layers with batch normalisation, the last without affine parameters, as in
the online-SSL comparisons of CLA and CLIMB; the original has two layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Backbone, Embeddings, Objective
from methods.parts.heads import projector


@dataclass(frozen=True, slots=True)
class Config:
    temperature: float = 0.5
    projection_dim: int = 2048
    alignment_temperature: float = 0.2  # CaSSLe's released code, for contrastive distillation


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy over the 2B projections (eq. 1), a scalar."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    batch = len(z1)
    positive = torch.arange(2 * batch, device=z.device).roll(batch)
    return F.cross_entropy(similarity, positive)


class SimCLR(Objective):
    contrastive: ClassVar[bool] = True

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.projection_dim = config.projection_dim
        self.projector = projector(backbone.feature_dim, config.projection_dim)

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        del rng
        features, projections = self.encode(backbone, views)
        z1, z2 = projections
        return Embeddings(nt_xent(z1, z2, self.config.temperature), features, projections)

    def alignment(self, predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """InfoNCE between 2B predictions and 2B targets, both ways, at CaSSLe's temperature.

        Row i of one matches row i of the other; all 2B rows are candidates.
        """
        p = F.normalize(torch.cat(predicted), dim=1)
        z = F.normalize(torch.cat(target), dim=1)
        similarity = p @ z.T / self.config.alignment_temperature
        same = torch.arange(len(p), device=p.device)
        return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


build = SimCLR

"""SimCLR (Chen et al., 2020, arXiv:2002.05709): two views of an image attract, others repel.

The projector has three layers with batch normalisation, the last without affine parameters, as in
the online-SSL comparisons of CLA and CLIMB; the original has two layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone, Embeddings, Objective


@dataclass(frozen=True, slots=True)
class Config:
    temperature: float = 0.5
    projection_dim: int = 2048


def projector(dim: int, projection_dim: int) -> nn.Sequential:
    """(B, dim) features to (B, projection_dim) projections."""
    return nn.Sequential(
        nn.Linear(dim, dim, bias=False),
        nn.BatchNorm1d(dim),
        nn.ReLU(inplace=True),
        nn.Linear(dim, dim, bias=False),
        nn.BatchNorm1d(dim),
        nn.ReLU(inplace=True),
        # No bias: the batch normalisation that follows would cancel it.
        nn.Linear(dim, projection_dim, bias=False),
        nn.BatchNorm1d(projection_dim, affine=False),
    )


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy over the 2B projections (eq. 1), a scalar."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    batch = len(z1)
    positive = torch.arange(2 * batch, device=z.device).roll(batch)
    return F.cross_entropy(similarity, positive)


class SimCLR(Objective):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.projector = projector(backbone.feature_dim, config.projection_dim)

    def forward(self, backbone: Backbone, views: tuple[Tensor, ...]) -> Embeddings:
        # Each view has its own batch statistics, as upstream.
        features = tuple(backbone(view) for view in views)
        z1, z2 = projections = tuple(self.projector(f) for f in features)
        return Embeddings(nt_xent(z1, z2, self.config.temperature), features, projections)


build = SimCLR

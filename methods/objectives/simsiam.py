"""SimSiam (Chen and He, 2021, arXiv:2011.10566): predict the other view, with a stopped gradient.

As in the online comparisons of CLA (Cignoni et al., CoLLAs 2025) and CLIMB (CoLLAs 2026), whose
released code deviates from the paper like this: the projector is as wide inside as the features,
not as the projections, and the predictor's learning rate is that of all other layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import Backbone, Embeddings, Objective
from methods.objectives.byol import mean_distance
from methods.parts.alignment import negative_cosine
from methods.parts.heads import predictor, projector


@dataclass(frozen=True, slots=True)
class Config:
    projection_dim: int = 2048
    predictor_dim: int = 512  # hidden units


class SimSiam(Objective):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.projection_dim = config.projection_dim
        self.projector = projector(backbone.feature_dim, config.projection_dim)
        self.predictor = predictor(config.projection_dim, config.predictor_dim)

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        """The loss (eq. 4), features and projections (not predictions) of two views."""
        del rng
        features, projections = self.encode(backbone, views)
        z1, z2 = projections
        p1, p2 = (self.predictor(z) for z in projections)
        loss = (negative_cosine(p1, z2.detach()) + negative_cosine(p2, z1.detach())) / 2
        return Embeddings(loss, features, projections)

    def alignment(self, predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """BYOL's loss between predictions and targets, as CaSSLe has it: 2 - 2 cos."""
        return mean_distance(predicted, target)


build = SimSiam

"""BYOL (Grill et al., 2020, arXiv:2006.07733): predict the moving average's view of the same image.

As in the online comparisons of CLA (Cignoni et al., CoLLAs 2025) and CLIMB (CoLLAs 2026), whose
released code deviates from the paper like this: the projector has three layers; the momentum stays
the same instead of rising to 1, as a stream has no known end; features are those of the moving
average (`measure: online`: of the trained encoder, as in the paper).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import Backbone, Embeddings, Objective
from methods.parts.alignment import negative_cosine
from methods.parts.heads import predictor, projector
from methods.parts.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Config:
    momentum: float = 0.99  # the paper's is 0.996 at first
    measure: Literal["momentum", "online"] = "momentum"  # CLIMB's released code
    projection_dim: int = 2048
    predictor_dim: int = 512  # hidden units

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {self.momentum}")


def distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the normalised rows of two (B, D) (eq. 2), a scalar."""
    return 2 + 2 * negative_cosine(predicted, target)


def mean_distance(predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
    """`distance` between predictions and targets of the same view, the mean over views."""
    pairs = zip(predicted, target, strict=True)
    return torch.stack([distance(p, z) for p, z in pairs]).mean()


class BYOL(Objective):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.projection_dim = config.projection_dim
        self.projector = projector(backbone.feature_dim, config.projection_dim)
        self.predictor = predictor(config.projection_dim, config.predictor_dim)
        self.target = Teacher(backbone, self, "batch")

    def forward(
        self, backbone: Backbone, views: tuple[Tensor, ...], rng: torch.Generator
    ) -> Embeddings:
        del rng
        # Each view has its own batch statistics in both networks, as upstream.
        with torch.no_grad():
            z1, z2 = (self.target.net(view) for view in views)
        features, projections = self.encode(backbone, views)
        p1, p2 = (self.predictor(z) for z in projections)
        return Embeddings(distance(p1, z2) + distance(p2, z1), features, projections)

    def alignment(self, predicted: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        return mean_distance(predicted, target)

    def after_step(self, backbone: Backbone) -> None:
        """Move the target network's parameters; its running statistics are its own."""
        self.target.follow(backbone, self, self.config.momentum)

    def encoder(self, backbone: Backbone) -> nn.Module:
        return self.target.net[0] if self.config.measure == "momentum" else backbone


build = BYOL

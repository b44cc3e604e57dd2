"""A classifier by cosines, and what LUCIR does with it (Hou et al., 2019)."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineHead(nn.Module):
    """Logits (B, C): cosines of features (B, D) and class weights (C, D), times a trained scale."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        bound = 1 / sqrt(dim)
        self.weight = nn.Parameter(torch.empty(classes, dim).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(()))

    def cosines(self, features: Tensor, trained: range) -> Tensor:
        """Without the scale, (B, C); only the weights of the classes `trained` get gradients."""
        before, after = self.weight[: trained.start], self.weight[trained.stop :]
        own = self.weight[trained.start : trained.stop]
        weight = torch.cat([before.detach(), own, after.detach()])
        return F.linear(F.normalize(features), F.normalize(weight))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))

    @torch.no_grad()
    def imprint(self, classes: range, features: Tensor, y: Tensor) -> None:
        """Point the weights of new classes to the mean of their features, as long as old weights.

        Args:
            classes: the new ones; those before them are the old ones, at least one.
            features: of images of the new classes, (N, D), at least one of each.
            y: their labels (N,).
        """
        own = F.one_hot(y - classes.start, len(classes)).to(features.dtype)
        means = own.T @ F.normalize(features) / own.sum(0)[:, None]
        length = self.weight[: classes.start].norm(dim=1).mean()
        self.weight[classes.start : classes.stop] = length * F.normalize(means)


def margin_ranking(cosines: Tensor, y: Tensor, past: int, *, hardest: int, margin: float) -> Tensor:
    """How far old images are from being `margin` closer to their class than to new ones; a scalar.

    The mean over the images of old classes, and over the new classes that are closest to each, of
    max(0, margin - cosine of the own class + cosine of the new one); 0 without such images.

    Args:
        cosines: of the old classes, then of the new ones, (B, C).
        y: labels (B,).
        past: how many are old, at least one.
        hardest: how many new classes count for an image, at most all.
        margin: between -1 and 1 if it is to mean something.
    """
    old = (y < past).to(cosines.dtype)
    true = cosines.gather(1, y[:, None])
    rivals = cosines[:, past:].topk(min(hardest, cosines.shape[1] - past)).values
    violations = (margin - true + rivals).clamp(min=0).mean(1)
    return (violations * old).sum() / old.sum().clamp(min=1)

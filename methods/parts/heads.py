"""The multilayer perceptrons that self-supervised objectives put on top of an encoder.

As in the online comparisons of CLA (Cignoni et al., CoLLAs 2025) and CLIMB (CoLLAs 2026), whose
released code gives every objective the three-layer projector of SimSiam (Chen and He, 2021,
arXiv:2011.10566), as wide inside as the encoder's features.
"""

from __future__ import annotations

from torch import nn


def projector(dim: int, projection_dim: int, *, last_norm: bool = True) -> nn.Sequential:
    """(B, dim) features to (B, projection_dim) projections.

    The last layer has no bias: the batch normalisation without affine parameters that follows it
    would cancel one. Without `last_norm` a bias would count, but the released code freezes it.
    """
    layers: list[nn.Module] = [
        *(nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True)),
        *(nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True)),
        nn.Linear(dim, projection_dim, bias=False),
    ]
    if last_norm:
        layers.append(nn.BatchNorm1d(projection_dim, affine=False))
    return nn.Sequential(*layers)


def predictor(dim: int, hidden: int = 512) -> nn.Sequential:
    """(B, dim) projections of one view to (B, dim) predictions of the other's.

    A bottleneck: SimSiam's 512 hidden units suit 2048 projections; for few, ask for fewer.
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, dim),
    )

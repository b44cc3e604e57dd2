"""A representation that grows by a backbone a task, and its linear classifier.

The super-feature of DER (Yan et al., CVPR 2021, arXiv:2103.16788): the features of all backbones
side by side, the oldest first; all but the newest backbone are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Backbone
from methods.parts.bytes_held import module_nbytes
from methods.parts.extra_parameters import ExtraParameters


@final
class FrozenBackbones:
    """The backbones of past tasks: in eval mode, with their own batch statistics, never trained.

    They are no submodules of anything, so that no `train()` of the network reaches them.
    """

    kind = "extra parameters"

    def __init__(self) -> None:
        self._backbones: list[Backbone] = []

    def __len__(self) -> int:
        return len(self._backbones)

    def __iter__(self) -> Iterator[Backbone]:
        return iter(self._backbones)

    @property
    def dim(self) -> int:
        """Features of all of them together."""
        return sum(backbone.feature_dim for backbone in self._backbones)

    def add(self, backbone: Backbone) -> None:
        """Freeze a backbone, which is not copied, as the newest of them."""
        backbone.zero_grad(set_to_none=True)  # what the last step left would be held for ever
        self._backbones.append(backbone.requires_grad_(requires_grad=False).eval())

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features (B, `dim`) of normalised images (B, C, H, W), the oldest backbone's first."""
        found = [backbone(x) for backbone in self._backbones]
        return torch.cat(found, dim=1) if found else x.new_empty(len(x), 0)

    @property
    def nbytes(self) -> int:
        return sum(module_nbytes(backbone) for backbone in self._backbones)

    def state_dict(self) -> dict[str, Any]:
        return {"backbones": [backbone.state_dict() for backbone in self._backbones]}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Undo `state_dict`; there must be as many backbones as in the state already."""
        for backbone, state in zip(self._backbones, state_dict["backbones"], strict=True):
            backbone.load_state_dict(state)


@final
class OlderWeights(ExtraParameters):
    """Weights (C, `dim`) by which a classifier hears frozen backbones; none with `dim` 0."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, dim))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight)


@final
class SuperHead(nn.Module):
    """One linear classifier over the features of all backbones, held in two pieces.

    Attributes:
        own: weights (C, D) for the newest backbone, and the bias: what finetuning has as well.
        older: weights for the frozen backbones: what growing costs.
    """

    def __init__(self, own: nn.Linear, older: OlderWeights) -> None:
        super().__init__()
        self.own, self.older = own, older

    @classmethod
    def fresh(cls, older_dim: int, own_dim: int, classes: int) -> SuperHead:
        """With the initial values of one PyTorch layer over all features."""
        whole = nn.Linear(older_dim + own_dim, classes)
        head = cls(nn.Linear(own_dim, classes), OlderWeights(classes, older_dim))
        head.assign(whole.weight, whole.bias)
        return head

    def forward(self, older: Tensor, own: Tensor) -> Tensor:
        """Logits (B, C) from the features (B, D_old) of frozen backbones and (B, D) of the new."""
        return self.older(older) + self.own(own)

    def weights(self) -> Tensor:
        """Weights (C, D_old + D) over super-features, a copy."""
        return torch.cat([self.older.weight, self.own.weight], dim=1).detach()

    @torch.no_grad()
    def assign(self, weights: Tensor, bias: Tensor) -> None:
        """Take these weights (C, D_old + D) and this bias (C,)."""
        older, own = weights.tensor_split([self.older.weight.shape[1]], dim=1)
        self.older.weight.copy_(older)
        self.own.weight.copy_(own)
        self.own.bias.copy_(bias)

    @torch.no_grad()
    def inherit(self, before: SuperHead, classes: int) -> None:
        """Take the weights of the first `classes` classes for all but the newest backbone.

        Args:
            before: the classifier before the newest backbone came.
            classes: those whose weights and bias are copied; the others stay as they are.
        """
        self.older.weight[:classes] = before.weights()[:classes]
        self.own.bias[:classes] = before.own.bias[:classes]

    @torch.no_grad()
    def align(self, new: range) -> None:
        """Make the weights of new classes as long, in the mean, as those of the classes before.

        Weight aligning (Zhao et al., CVPR 2020, arXiv:1911.07053) as PyCIL applies it to DER
        (github.com/G-U-N/PyCIL, utils/inc_net.py): lengths are those over super-features, the bias
        stays.

        Args:
            new: classes of the current task; it does not begin with 0.
        """
        lengths = self.weights().norm(dim=1)
        factor = lengths[: new.start].mean() / lengths[new.start : new.stop].mean()
        for weight in (self.older.weight, self.own.weight):
            weight[new.start : new.stop] *= factor


@final
class AuxiliaryHead(ExtraParameters):
    """A linear classifier beside the main one while a task is learned; none with 0 outputs."""

    def __init__(self, dim: int = 0, outputs: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, outputs) if outputs else None

    def __bool__(self) -> bool:
        return self.layer is not None

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, outputs) of features (B, D)."""
        assert self.layer is not None
        return self.layer(features)


def told_apart(y: Tensor, past: int) -> Tensor:
    """Targets of DER's auxiliary classifier: all past classes are 0, the new ones 1, 2, ...

    Args:
        y: labels, int64 (B,).
        past: the labels below it are those of past classes.
    """
    return (y - past + 1).clamp(min=0)

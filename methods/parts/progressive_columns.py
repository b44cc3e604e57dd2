"""Columns of a progressive network (Rusu et al., 2016, arXiv:1606.04671), convolutional.

Each column is a network of its own; from the second on, adapters bring in what the older columns,
which are frozen, have between their stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import StagedBackbone
from methods.parts.bytes_held import module_nbytes
from methods.parts.extra_parameters import ExtraParameters
from methods.parts.feature_maps import map_shapes

Rule = Literal["concat_logits", "max_softmax", "min_entropy"]

APART = 100.0
"""Nats that separate the scores of the column that is believed from those of the others."""


@dataclass(frozen=True, slots=True)
class Activations:
    """What a column makes of B images, as far as newer columns and the rule need it.

    Attributes:
        maps: behind each stage, (B, C_i, H_i, W_i).
        features: (B, D).
        logits: (B, num_classes).
    """

    maps: list[Tensor]
    features: Tensor
    logits: Tensor


@final
class Scale(nn.Module):
    """A factor for every element, small and random at first, by which adapters begin."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(shape) * 0.1)  # Mammoth's initial values

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


@final
class Laterals(ExtraParameters):
    """What a column hears of `older` columns of the same form; nothing without a `fresh` network.

    `into[i]` leads from the maps behind stage i of all older columns to a summand behind stage
    i + 1: scale, 1x1 convolution to the channels of one column, ReLU, then stage i + 1 of a network
    that lends its stages alone. `outputs` leads from their features to a summand of the logits.
    """

    def __init__(
        self,
        older: int = 0,
        fresh: StagedBackbone | None = None,
        image_shape: tuple[int, int, int] = (0, 0, 0),
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.into = nn.ModuleList()
        self.outputs = nn.Sequential()
        if fresh is None:
            return
        stages, shapes = list(fresh.stages), map_shapes(fresh, image_shape)
        for (channels, height, width), stage in zip(shapes[:-1], stages[1:], strict=True):
            scale = Scale(older * channels, height, width)
            reduce = nn.Conv2d(older * channels, channels, 1)
            self.into.append(nn.Sequential(scale, reduce, nn.ReLU(inplace=True), stage))
        dim = fresh.feature_dim
        self.outputs.extend([Scale(older * dim), nn.Linear(older * dim, dim)])
        self.outputs.extend([nn.ReLU(inplace=True), nn.Linear(dim, num_classes)])


@final
class Column(nn.Module):
    """A network with its head and its lateral connections from older columns."""

    def __init__(self, backbone: StagedBackbone, head: nn.Module, laterals: Laterals) -> None:
        super().__init__()
        self.backbone, self.head, self.laterals = backbone, head, laterals

    def forward(self, x: Tensor, older: Sequence[Activations]) -> Activations:
        """Normalised images (B, C, H, W), and what all older columns make of them."""
        maps: list[Tensor] = []
        h = self.backbone.stem(x)
        for i, stage in enumerate(self.backbone.stages):
            h = stage(h)
            if maps and older:
                heard = torch.cat([one.maps[i - 1] for one in older], dim=1)
                h = F.relu(h + self.laterals.into[i - 1](heard))
            maps.append(h)
        features = self.backbone.pool(h)
        logits = self.head(features)
        if older:
            heard = torch.cat([one.features for one in older], dim=1)
            logits = logits + self.laterals.outputs(heard)
        return Activations(maps, features, logits)


@final
class FrozenColumns:
    """The columns of past tasks: in eval mode, with their own batch statistics, never trained.

    Attributes:
        stops: behind the last class of each column's task; the first begins with class 0.
    """

    kind = "extra parameters"

    def __init__(self) -> None:
        self.stops: list[int] = []
        self._columns: list[Column] = []

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, column: Column, stop: int) -> None:
        """Freeze the column of a task whose last class is `stop` - 1."""
        self._columns.append(column.requires_grad_(requires_grad=False).eval())
        self.stops.append(stop)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> list[Activations]:
        """All columns on normalised images, each once: the newer ones hear the older ones."""
        found: list[Activations] = []
        for column in self._columns:
            found.append(column(x, found))
        return found

    @property
    def nbytes(self) -> int:
        return sum(module_nbytes(column) for column in self._columns)

    def state_dict(self) -> dict[str, Any]:
        return {"stops": self.stops.copy(), "columns": [c.state_dict() for c in self._columns]}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.stops = list(state_dict["stops"])
        for column, state in zip(self._columns, state_dict["columns"], strict=True):
            column.load_state_dict(state)


def class_scores(
    logits: Sequence[Tensor], stops: Sequence[int], rule: Rule, *, whole: bool
) -> Tensor:
    """Scores (B, C) of all classes; within the classes of a column always in its own order.

    Classes that no column has learned have the newest column's logits, as in a single network.

    Args:
        logits: (B, C) of each column, the oldest first.
        stops: behind the last class of each column that has learned.
        rule: "concat_logits" compares the columns' logits, "max_softmax" the logarithms of their
            probabilities; "min_entropy" believes the column whose probabilities have the least
            entropy, and puts its classes before all others.
        whole: a column's probabilities are those of all C outputs, not of its own classes.
    """
    unlearned = logits[-1][:, stops[-1] if stops else 0 :]
    own = [slice(start, stop) for start, stop in pairwise([0, *stops])]
    if rule == "concat_logits" or not stops:
        pieces = [one[:, c] for one, c in zip(logits, own, strict=False)]
        return torch.cat([*pieces, unlearned], dim=1)
    trained = logits if whole else [one[:, c] for one, c in zip(logits, own, strict=True)]
    judged = [log_probabilities(one) for one in trained]
    pieces = [one[:, c] for one, c in zip(judged, own, strict=True)] if whole else judged
    if rule == "min_entropy":
        pieces = _most_certain_first(judged, pieces)
    return torch.cat([*pieces, unlearned.double()], dim=1)


def _most_certain_first(judged: Sequence[Tensor], pieces: Sequence[Tensor]) -> list[Tensor]:
    """Lower the pieces (B, C_k) of all columns but the most certain one below that one's."""
    entropies = torch.stack([-(j.exp() * j).sum(1) for j in judged], dim=1)
    best = entropies.argmin(1, keepdim=True)  # on ties the oldest
    lowest = torch.stack([piece.amin(1) for piece in pieces], dim=1).gather(1, best)
    return [torch.where(best == k, p, p + (lowest - APART)) for k, p in enumerate(pieces)]


def log_probabilities(logits: Tensor) -> Tensor:
    """Logarithms of the softmax of (B, C), in double precision, exact for the likeliest class.

    Columns are sure of themselves on images of any task: in single precision many probabilities
    would be the same 1, and the tie would go to the oldest column.
    """
    logits = logits.double()
    top, at = logits.max(1, keepdim=True)
    others = (logits - top).exp().scatter(1, at, 0).sum(1, keepdim=True)
    return logits - top - others.log1p()

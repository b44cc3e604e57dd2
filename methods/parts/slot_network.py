"""A staged backbone whose maps between its first stages are read from slot memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from methods.base import StagedBackbone
from methods.parts.slot_attention import Over, Target, attend
from methods.parts.slot_memory import SlotMemories

Query = Literal["position", "channel"]
"""What asks a memory: every position by its channels, or every channel by its positions."""

Read = Literal["memory", "augmented", "resnet"]
"""What the next stage gets: what the memory says, that added to the map, or the map alone."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a network computed.

    Attributes:
        features: (B, D).
        logits: (B, C).
        targets: for another network's `target`, one at each memory.
        distances: (B,) at each memory, 1 - cos of the attention of each image and the target's;
            none without a target.
    """

    features: Tensor
    logits: Tensor
    targets: tuple[Target, ...]
    distances: tuple[Tensor, ...]


@final
class SlotNetwork(nn.Module):
    """Backbone and head, with a memory behind each of the first stages.

    Args:
        backbone: with at least as many stages as there are memories.
        head: from features to logits.
        memories: the dimensions that `query_dims` gives.
        query: see `Query`.
        read: see `Read`.
        over: what attention sums to 1 over.
    """

    def __init__(
        self,
        backbone: StagedBackbone,
        head: nn.Module,
        memories: SlotMemories,
        *,
        query: Query = "position",
        read: Read = "memory",
        over: Over = "slots",
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.memories = backbone, head, memories
        self.query: Query = query
        self.read: Read = read
        self.over: Over = over

    def forward(self, x: Tensor, target: tuple[Target, ...] | None = None) -> Trace:
        """From normalised images (B, C, H, W), compared with `target` at every memory if given."""
        x = self.backbone.stem(x)
        targets: list[Target] = []
        distances: list[Tensor] = []
        for number, stage in enumerate(self.backbone.stages):
            x = stage(x)
            if number >= len(self.memories):
                continue
            memory = self.memories.all()[number]
            queries, keys = self._queries(x), memory.all_keys()
            against = None if target is None else target[number]
            said, distance = attend(
                queries, keys, memory.all_values(), over=self.over, target=against
            )
            targets.append((queries.detach(), keys.detach()))
            if distance is not None:
                distances.append(distance)
            x = self._next(x, said)
        features = self.backbone.pool(x)
        return Trace(features, self.head(features), tuple(targets), tuple(distances))

    def _queries(self, x: Tensor) -> Tensor:
        """Of a map (B, C, H, W): (B, H * W, C) by position, (B, C, H * W) by channel."""
        rows = x.flatten(2)
        return rows if self.query == "channel" else rows.transpose(1, 2)

    def _next(self, x: Tensor, said: Tensor) -> Tensor:
        """The input (B, C, H, W) of the next stage."""
        if self.read == "resnet":
            return x
        rows = said if self.query == "channel" else said.transpose(1, 2)
        rows = rows.reshape(x.shape)
        return rows if self.read == "memory" else x + rows


@torch.no_grad()
def query_dims(
    backbone: StagedBackbone, image: Tensor, count: int, query: Query
) -> tuple[int, ...]:
    """Dimensions of the queries behind the first `count` stages.

    Args:
        backbone: in eval mode, so that nothing of it changes.
        image: normalised, (1, C, H, W); its content does not matter.
        count: of stages.
        query: see `Query`.
    """
    if query == "position":
        return backbone.stage_channels[:count]
    x, dims = backbone.stem(image), list[int]()
    for stage in backbone.stages[:count]:
        x = stage(x)
        dims.append(x.shape[2] * x.shape[3])
    return tuple(dims)

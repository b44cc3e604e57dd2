"""Osiris-R: the stream in one space, the memory and its distance from the stream in another.

Zhang et al., 2024, arXiv:2404.19132, with a reservoir of images, in the online setting of CLIMB
(CoLLAs 2026). Two heads g and h on one encoder: NT-Xent of the stream on g, plus half of NT-Xent of
the memory on h, plus half of a loss on h that tells images of the stream from those of the memory.
Until the buffer holds more than `replay_batch` images there is the first term alone; when it does,
h begins as a copy of g, which needs no task boundaries.

It stands in for objective simclr and brings its own losses. Deviations: the original has heads of
two layers and GroupNorm, and copies g to h when the second task begins. In the released code of
CLIMB h is never copied nor trained (`train_h: false`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.objectives import simclr
from methods.parts.buffers import Buffer, reservoir
from methods.parts.bytes_held import module_nbytes
from methods.parts.heads import projector
from methods.parts.replay import require_replay
from methods.parts.stand_in import require_contrastive


@dataclass(frozen=True, slots=True)
class Config:
    temperature: float = 0.1  # Osiris, released code
    weight: float = 0.5  # of the terms on h; Osiris, released code
    projection_dim: int = 2048  # CLIMB's released code
    train_h: bool = True  # Osiris; false: CLIMB's released code


@final
class SecondHead(nn.Module):
    """Head h, built like the first one, from features (B, D) to the space of the memory."""

    kind = "extra parameters"

    def __init__(self, config: Config, ctx: Context, feature_dim: int) -> None:
        super().__init__()
        make = partial(projector, feature_dim, config.projection_dim)
        self.head = ctx.random.weights(make, "second head").to(ctx.device)

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)

    def copy(self, first: nn.Module) -> None:
        """Begin as the first head is now."""
        self.head.load_state_dict(first.state_dict())


class OsirisR(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training)
        require_contrastive(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        first = simclr.Config(config.temperature, config.projection_dim)
        super().__init__(ctx, partial(simclr.SimCLR, first))
        self.config = config
        self.h = SecondHead(config, ctx, self.backbone.feature_dim)
        self.h.requires_grad_(config.train_h)
        if config.train_h:
            self.train_also(self.h)
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, ctx.random("buffer"), ctx.device)

    @property
    def replays(self) -> bool:
        return len(self.buffer) > self.ctx.training.replay_batch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not self.replays:
            return {"present": self.embeddings(self.views(batch.x)).loss}
        size, temperature = self.ctx.training.replay_batch, self.config.temperature
        old = self.buffer.sample(size, self.ctx.random("replay"))["x"]
        features = [self.backbone(view) for view in self.views(torch.cat([old, batch.x]))]
        g1, g2 = (self.objective.projector(f[size:]) for f in features)
        h1, h2 = (self.h(f) for f in features)
        past, now = (h1[:size], h2[:size]), (h1[size:], h2[size:])
        return {
            "present": simclr.nt_xent(g1, g2, temperature),
            "cross": self.config.weight * cross(now, past, temperature),
            "past": self.config.weight * simclr.nt_xent(*past, temperature),
        }

    def remember(self, batch: Batch) -> None:
        before = self.replays
        self.buffer.add(x=batch.x)
        if self.replays and not before and self.config.train_h:
            self.h.copy(self.objective.projector)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer, "h": self.h}


def cross(now: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    """Tell images of the stream from those of the memory (Osiris), a scalar.

    Each view attracts the other view of its image and repels all views of the other group; the
    mean over the anchors of one group, averaged over the two groups. Views are (B, D) each.
    """
    x, y = (F.normalize(torch.cat(views), dim=1) for views in (now, past))
    between = x @ y.T / temperature
    losses: list[Tensor] = []
    for z, negatives in ((x, between), (y, between.T)):
        positive = (z * z.roll(len(z) // 2, 0)).sum(1, keepdim=True) / temperature
        scores = torch.cat([positive, negatives], dim=1)
        first = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        losses.append(F.cross_entropy(scores, first))
    return (losses[0] + losses[1]) / 2


build = OsirisR

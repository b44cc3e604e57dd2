"""Experience Replay (Chaudhry et al., 2019, arXiv:1902.10486), with a reservoir of images.

Stream and replayed images go through the network together. Deviation: the two cross-entropies are
averaged each over its own images and added, so that `replay_weight` does not depend on the sizes
of the two batches; the paper averages over their union.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Stateful
from methods.learners import ClassifierMethod
from methods.parts.buffers import Buffer, reservoir


@dataclass(frozen=True, slots=True)
class Config:
    replay_weight: float = 1.0


class ER(ClassifierMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, rng, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not len(self.buffer):
            return {"stream": F.cross_entropy(self.net(self.views(batch.x)), batch.labels())}
        old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        logits = self.net(self.views(torch.cat([batch.x, old["x"]])))
        stream, replay = logits.split([len(batch.x), len(old["x"])])
        return {
            "stream": F.cross_entropy(stream, batch.labels()),
            "replay": self.config.replay_weight * F.cross_entropy(replay, old["y"]),
        }

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x, y=batch.labels())

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


build = ER

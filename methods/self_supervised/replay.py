"""Replay for online SSL: the objective on replayed and stream images together.

The experience-replay baseline of CLA (Cignoni et al., CoLLAs 2025): replay begins once
the buffer holds more than `replay_batch` images, every pass draws a new replay batch, and replayed
images come first. Deviation: the buffer keeps raw images, and no features, which the released code
refreshes but never uses for this method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.buffers import Buffer, fifo, reservoir
from methods.parts.replay import require_replay, with_replay


@dataclass(frozen=True, slots=True)
class Config:
    policy: Literal["reservoir", "fifo"] = "reservoir"  # CLA compares both


class Replay(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        policy = {"reservoir": reservoir, "fifo": fifo}[config.policy]
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, policy, rng, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        size, rng = self.ctx.training.replay_batch, self.ctx.random("replay")
        x, _ = with_replay(self.buffer, batch.x, size, rng)
        return {"ssl": self.embeddings(self.views(x)).loss}

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


build = Replay

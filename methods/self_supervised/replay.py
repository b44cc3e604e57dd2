"""Replay for online SSL: the objective on replayed and stream images together.

The experience-replay baseline of CLA (Cignoni et al., CoLLAs 2025): replay begins once
the buffer holds more than `replay_batch` images, every pass draws a new replay batch, and replayed
images come first. Deviation: the buffer keeps raw images, and no features, which the released code
refreshes but never uses for this method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Batch, Context, Stateful, Training
from methods.learners import SelfSupervisedMethod
from methods.parts.buffers import Buffer, fifo, reservoir


@dataclass(frozen=True, slots=True)
class Config:
    policy: Literal["reservoir", "fifo"] = "reservoir"


class Replay(SelfSupervisedMethod):
    @classmethod
    def check(cls, training: Training) -> None:
        if training.buffer_size <= training.replay_batch:
            raise ValueError(
                f"buffer_size must be above replay_batch, or nothing is ever replayed: "
                f"{training.buffer_size} and {training.replay_batch}"
            )

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        policy = {"reservoir": reservoir, "fifo": fifo}[config.policy]
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, policy, rng, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, size = batch.x, self.ctx.training.replay_batch
        if len(self.buffer) > size:
            x = torch.cat([self.buffer.sample(size, self.ctx.random("replay"))["x"], x])
        return {"ssl": self.embeddings(x).loss}

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


build = Replay

"""MinRed: the objective on images of a memory that drops the most redundant; none of the stream.

Purushwalkam et al., 2022, arXiv:2203.12710, as in CLA (Cignoni et al., CoLLAs 2025): a mini-batch
enters the buffer before it is trained on, with the projections of its images without augmentation
(batch normalisation by the mini-batch's own statistics, as in the released code); then every pass
draws `replay_batch` images of the buffer, or all there are, and moves their stored projections
halfway to the current ones. The batch of a step is smaller than that of the other methods by the
stream's images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod, evaluating
from methods.parts.min_redundancy import MinRedBuffer


@dataclass(frozen=True, slots=True)
class Config:
    keep: float = 0.5  # share of a stored projection that a pass leaves; MinRed's Polyak factor
    novelty_bn: Literal["batch", "eval"] = "batch"  # released code; eval: running statistics


class MinRed(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        training = planned.training
        if training.replay_batch < 2:
            raise ValueError("replay_batch: it trains on replayed images alone, and 1 is too few")
        if training.buffer_size < training.replay_batch:
            raise ValueError(
                f"buffer_size must not be below replay_batch: "
                f"{training.buffer_size} and {training.replay_batch}"
            )

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.buffer = MinRedBuffer(ctx.training.buffer_size, ctx.device)

    def before_passes(self, batch: Batch) -> None:
        if self.config.novelty_bn == "batch":
            self.buffer.add(x=batch.x, z=self.project(batch.x))
            return
        with evaluating(self.net):
            self.buffer.add(x=batch.x, z=self.project(batch.x))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        del batch  # it is in the buffer
        size, rng = self.ctx.training.replay_batch, self.ctx.random("replay")
        rows = self.buffer.draw(size, rng)
        held = self.buffer.take(rows)
        found = self.embeddings(self.views(held["x"]))
        now = found.mean_projection()
        self.buffer.put(rows, z=torch.lerp(now, held["z"], self.config.keep))
        return {"ssl": found.loss}

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


build = MinRed

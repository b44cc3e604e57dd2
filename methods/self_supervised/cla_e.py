"""CLA-E: replayed images align with a moving average of the network.

Continual Latent Alignment with an averaged encoder (Cignoni et al., CoLLAs 2025, eq. 3). The
objective sees replayed and stream images together; the alignment sees the replayed ones alone, and
begins with replay, once the FIFO buffer holds more than `replay_batch` images. The average follows
after every optimizer step. Deviation: the buffer keeps no features, which the released code
refreshes but never uses for this method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.buffers import Buffer, fifo
from methods.parts.replay import require_replay, with_replay
from methods.parts.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment; CLA, Tables 8 and 9
    tau: float = 0.999  # momentum of the average; CLA, released code
    ema_bn: Literal["batch", "copy"] = "batch"  # released code; copy: running statistics
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # released code


class CLAE(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training)
        require_alignable(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.buffer = Buffer(ctx.training.buffer_size, fifo, ctx.random("buffer"), ctx.device)
        self.teacher = Teacher(self.backbone, self.objective, config.ema_bn)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        self.train_also(self.alignment)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        size, rng = self.ctx.training.replay_batch, self.ctx.random("replay")
        x, replayed = with_replay(self.buffer, batch.x, size, rng)
        views = self.views(x)
        found = self.embeddings(views)
        if replayed is None:
            return {"ssl": found.loss}
        alignment = self.alignment.towards(self.teacher, views, found.projections, size)
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def after_step(self) -> None:
        super().after_step()
        self.teacher.follow(self.backbone, self.objective, self.config.tau)

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x)

    def parts(self) -> dict[str, Stateful]:
        mine = {"buffer": self.buffer, "alignment": self.alignment, "teacher": self.teacher}
        return {**super().parts(), **mine}


build = CLAE

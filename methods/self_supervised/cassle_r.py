"""CaSSLe-R: CaSSLe whose replayed images align, and not those of the stream; needs boundaries.

The replay variant of CaSSLe (Fini et al., 2022, arXiv:2112.04215) in CLA (Cignoni et al., CoLLAs
2025): a reservoir buffer, the objective on replayed and stream images, the alignment of the
replayed ones with the network as it was when the task began. Settings and deviations are those of
`cassle`; the buffer keeps no features, which the released code refreshes but never uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import SelfSupervisedMethod
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.buffers import Buffer, reservoir
from methods.parts.replay import require_replay, with_replay
from methods.parts.teachers import Snapshot


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment; CaSSLe, released code (lambda)
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # CLA's released code
    skip_first_task: bool = True  # CaSSLe; false: CLA's released code
    frozen_bn: Literal["frozen", "batch"] = "frozen"  # CaSSLe; batch: CLA's released code


class CaSSLeR(SelfSupervisedMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.BOUNDARIES})

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training)
        require_alignable(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, ctx.random("buffer"), ctx.device)
        self.before = Snapshot(self.backbone, self.objective, config.frozen_bn)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        self.train_also(self.alignment)

    def begin_task(self, task: TaskView) -> None:
        if task.position or not self.config.skip_first_task:
            self.before.take()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        size, rng = self.ctx.training.replay_batch, self.ctx.random("replay")
        x, replayed = with_replay(self.buffer, batch.x, size, rng)
        views = self.views(x)
        found = self.embeddings(views)
        if replayed is None or self.before.teacher is None:
            return {"ssl": found.loss}
        alignment = self.alignment.towards(self.before.teacher, views, found.projections, size)
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x)

    def parts(self) -> dict[str, Stateful]:
        mine = {"buffer": self.buffer, "alignment": self.alignment, "before": self.before}
        return {**super().parts(), **mine}


build = CaSSLeR

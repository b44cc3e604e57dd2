"""Exemplar replay: random images of every past class join the batches of the new ones.

The comparison "Replay" of BrainCL (arXiv:2504.14727), the plainest use of the memory that iCaRL
(Rebuffi et al., 2017, arXiv:1611.07725) brought to class-incremental learning: cross-entropy over
the classes seen so far, new and old images alike; after a task so many images of each of its
classes are kept at random. PyCIL's `replay` (github.com/G-U-N/PyCIL) chooses them by herding.

How exemplars join the batches, and in what it deviates: `methods.parts.rehearsal`. Outputs of
classes not seen yet get no gradient, but weight decay makes their weights smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, TaskView
from methods.parts.exemplars import random_of_each
from methods.parts.rehearsal import Quota, RehearsalMethod, joined


@dataclass(frozen=True, slots=True)
class Config:
    quota: Quota = "per_class"  # BrainCL's comparison; total: PyCIL's default


class ExemplarReplay(RehearsalMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx, config.quota)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = joined(batch, self.drawn)
        logits = self.net(self.views(x))[:, : self.current.seen]
        return {"cross_entropy": F.cross_entropy(logits, y)}

    def end_task(self, task: TaskView) -> None:
        rng = self.ctx.random("exemplars")
        self.rehearsal.renew(
            task.data, self.current.seen, lambda y, share: random_of_each(y, share, rng)
        )
        super().end_task(task)


build = ExemplarReplay

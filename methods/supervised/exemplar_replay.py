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
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.current_task import CurrentTask
from methods.parts.exemplars import random_of_each
from methods.parts.rehearsal import Quota, Rehearsal, joined
from methods.parts.requirements import require_own_classes, require_room


@dataclass(frozen=True, slots=True)
class Config:
    quota: Quota = "per_class"  # BrainCL's comparison; total: PyCIL's default


class ExemplarReplay(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_own_classes(planned)
        require_room(planned, planned.num_classes, "classes")

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.current = CurrentTask()
        self.rehearsal = Rehearsal(ctx.training, ctx.num_classes, config.quota, ctx.device)
        self._drawn: tuple[Tensor, Tensor] | None = None  # exemplars that join the batch

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)
        size, rng = self.ctx.training.batch_size, self.ctx.random("replay")
        self.rehearsal.begin(len(task.batches(size, epochs=1, rng=rng)))

    def before_passes(self, batch: Batch) -> None:
        del batch
        self._drawn = self.rehearsal.draw(self.ctx.random("replay"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = joined(batch, self._drawn)
        logits = self.net(self.views(x))[:, : self.current.seen]
        return {"cross_entropy": F.cross_entropy(logits, y)}

    def end_task(self, task: TaskView) -> None:
        rng = self.ctx.random("exemplars")
        self.rehearsal.renew(
            task.data, self.current.seen, lambda y, share: random_of_each(y, share, rng)
        )
        self._drawn = None

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "rehearsal": self.rehearsal}


build = ExemplarReplay

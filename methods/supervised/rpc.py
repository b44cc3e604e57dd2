"""RPC: replay under a classifier that is fixed in advance (Pernici et al., 2021, arXiv:2010.08657).

The class weights are the corners of a regular simplex with a corner for every class to come; the
network learns to point to them. Stream and replayed images share one cross-entropy over all
classes, seen and unseen. The memory is refilled at the end of every task: each old class keeps its
share, the new ones divide what remains.

Deviations from Mammoth's `rpc`: at the end of the t-th task an old class keeps M // classes seen,
those of that task included (in later revisions of Mammoth they are not, so that the second task
stores nothing); what a new class with few images leaves free goes to the other new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.balanced_memory import BalancedMemory, evenly_of_each
from methods.parts.exemplars import first_of_each
from methods.parts.polytope import SimplexClassifier
from methods.parts.requirements import require_own_classes, require_room
from methods.parts.transfers import sent


@dataclass(frozen=True, slots=True)
class Config:
    pass


class RPC(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        if planned.num_classes < 2:
            raise ValueError("it needs 2 classes or more: a simplex has no single corner")
        require_own_classes(planned)
        require_room(planned, planned.num_classes, "classes")

    def __init__(self, config: Config, ctx: Context) -> None:
        del config
        super().__init__(ctx)
        self.exemplars = BalancedMemory(ctx.training.buffer_size, ctx.device)

    def make_head(self, ctx: Context) -> nn.Module:
        linear = nn.Linear(self.backbone.feature_dim, ctx.num_classes - 1)
        return nn.Sequential(linear, SimplexClassifier(ctx.num_classes))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch.x, batch.labels()
        if len(self.exemplars):
            old = self.exemplars.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
            x, y = torch.cat([x, old["x"]]), torch.cat([y, old["y"]])
        return {"cross_entropy": F.cross_entropy(self.net(self.views(x)), y)}

    def end_task(self, task: TaskView) -> None:
        data, memory = task.data, self.exemplars
        share, kept = memory.capacity // task.classes.stop, 0
        if len(memory):
            kept = len(first_of_each(memory.everything()["y"], share))
        rng = self.ctx.random("exemplars")
        rows = evenly_of_each(data.labels(), memory.capacity - kept, rng)
        rows = sent(rows, data.x.device)
        memory.renew({"x": data.x[rows], "y": data.labels()[rows]}, by="y", keep=share)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "exemplars": self.exemplars}


build = RPC

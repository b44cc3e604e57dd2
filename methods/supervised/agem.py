"""A-GEM (Chaudhry et al., 2019, arXiv:1812.00420): no step against the gradient of a replay batch.

The gradient g of the stream's cross-entropy loses its part along the gradient r of the replayed
images' where the two conflict (g . r < 0). The projection concerns the gradient: an optimizer that
rescales it, as Adam does, may still step against r.

`fill: reservoir` is A-GEM-R (Buzzega et al., 2020, arXiv:2004.07211). Deviation from Mammoth
(Buzzega et al., 2020): it stores one mini-batch of each task, whatever the size of the buffer;
here every task has an equal share, its classes equally many images. `fill: one_batch` is Mammoth's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.balanced_memory import evenly_of_each
from methods.parts.buffers import Buffer, reservoir
from methods.parts.flat_gradients import flat_gradient, set_gradient
from methods.parts.requirements import require_room, require_two_images


@dataclass(frozen=True, slots=True)
class Config:
    # What enters the memory: a share of each task at its end, a mini-batch of it, or a reservoir.
    fill: Literal["per_task", "one_batch", "reservoir"] = "per_task"  # Mammoth: one_batch


class AGEM(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        held = planned.training.buffer_size
        if config.fill == "per_task":
            require_room(planned, len(planned.task_classes), "tasks")
            held //= len(planned.task_classes)
        require_two_images(planned, held)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, rng, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"stream": F.cross_entropy(self.net(self.views(batch.x)), batch.labels())}

    def adjust_gradients(self) -> None:
        if not len(self.buffer):
            return
        parameters = [*self.net.parameters()]
        gradient = flat_gradient(parameters)
        old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.net(self.views(old["x"])), old["y"]).backward()
        set_gradient(parameters, without_conflict(gradient, flat_gradient(parameters)))

    def remember(self, batch: Batch) -> None:
        if self.config.fill == "reservoir":
            self.buffer.add(x=batch.x, y=batch.labels())

    def end_task(self, task: TaskView) -> None:
        if self.config.fill == "reservoir":
            return
        data, rng = task.data, self.ctx.random("exemplars")
        if self.config.fill == "per_task":
            # All shares together fit into the buffer, so that the reservoir keeps everything.
            share = self.buffer.capacity // self.ctx.num_tasks
            rows = evenly_of_each(data.labels(), share, rng)
        else:
            rows = torch.randperm(len(data.x), generator=rng)[: self.ctx.training.batch_size]
        self.buffer.add(x=data.x[rows], y=data.labels()[rows])

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


def without_conflict(gradient: Tensor, reference: Tensor) -> Tensor:
    """`gradient` (P,) less its part along `reference` (P,), if their product is negative."""
    conflict = (gradient @ reference).clamp(max=0)
    return gradient - conflict / (reference @ reference + 1e-12) * reference


build = AGEM

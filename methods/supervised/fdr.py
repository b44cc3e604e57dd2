"""FDR (Benjamin et al., 2019, arXiv:1805.08289): outputs on stored images stay where they were.

After each step on the stream's cross-entropy a second one, with the same optimizer, on the distance
between the present class probabilities of replayed images and those at the end of their task.

Deviations from Mammoth's `fdr` (Buzzega et al., 2020, arXiv:2004.07211): `alpha`, which it asks for
and does not use, weights the distance; the share of a task at the end of the t-th is M // t, also
in the later revisions where it is M // (t - 1); the logits stored with an image are those of that
image, without augmentation and in eval mode, not those of a random view in training mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.balanced_memory import BalancedMemory
from methods.parts.requirements import require_room, require_two_images


@dataclass(frozen=True, slots=True)
class Config:
    alpha: float = 0.5  # EDD's comparison

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")


class FDR(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_room(planned, len(planned.task_classes), "tasks")
        require_two_images(planned, planned.training.buffer_size)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.exemplars = BalancedMemory(ctx.training.buffer_size, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"stream": F.cross_entropy(self.net(self.views(batch.x)), batch.labels())}

    def after_step(self) -> None:
        if not len(self.exemplars):
            return
        old = self.exemplars.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        distance = functional_distance(self.net(self.views(old["x"])), old["logits"])
        self.optimizer.zero_grad(set_to_none=True)
        (self.config.alpha * distance).backward()
        self.optimizer.step()

    def end_task(self, task: TaskView) -> None:
        share = self.exemplars.capacity // (task.position + 1)
        images = task.data.x
        rows = torch.randperm(len(images), generator=self.ctx.random("exemplars"))[:share]
        x = images[rows]
        logits = torch.cat([self.predict(some) for some in x.split(self.ctx.training.batch_size)])
        position = torch.full((len(x),), task.position, device=x.device)
        self.exemplars.renew({"x": x, "logits": logits, "task": position}, by="task", keep=share)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "exemplars": self.exemplars}


def functional_distance(logits: Tensor, stored: Tensor) -> Tensor:
    """Mean L2 distance (not squared) of two softmaxes over the classes; logits (B, C)."""
    difference = F.softmax(logits, dim=1) - F.softmax(stored, dim=1)
    # The root has no finite gradient at 0, where every image starts.
    return (difference.square().sum(1) + 1e-12).sqrt().mean()


build = FDR

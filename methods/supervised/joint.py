"""Joint training: the data of all tasks so far at once; the upper reference.

Each stage starts again from the initial weights of the trial's seed and trains for the protocol's
epochs on everything seen so far. `stages: last` trains once, after the last task has arrived, and
stores the last row of A alone: FA exists then, CA does not. Mammoth's `joint` (Buzzega et al.,
2020, arXiv:2004.07211) does the latter. The cross-entropy is over all classes, future ones
included; `outputs: seen` leaves out those to come, as a head does that grows with the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Batches, Context, Losses, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.current_task import CurrentTask


@dataclass(frozen=True, slots=True)
class Config:
    stages: Literal["all", "last"] = "all"
    outputs: Literal["all", "seen"] = "all"


class Joint(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.ALL_DATA}
    )

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.current = CurrentTask()
        self.initial = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.trained = False

    @classmethod
    def measured_early(cls, config: Config) -> bool:
        return config.stages == "all"

    @property
    def measurable(self) -> bool:
        return self.trained or self.measured_early(self.config)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.net(self.views(batch.x))
        if self.config.outputs == "seen":
            logits = logits[:, : self.current.seen]
        return {"stream": F.cross_entropy(logits, batch.labels())}

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        last = task.position == self.ctx.num_tasks - 1
        if self.config.stages == "last" and not last:
            return
        self.net.load_state_dict(self.initial)
        self.optimizer = self.make_optimizer()
        yield from super().learn_task(task, batches)
        self.trained = True

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current}


build = Joint

"""LwF-MC: every class has a sigmoid of its own, and those of past classes follow the old network.

iCaRL's comparison without exemplars (Rebuffi et al., 2017, arXiv:1611.07725), as in Mammoth. The
targets of past classes are the sigmoids of the network before the task, those of the task's own
classes the labels. Without past classes (the first task, all tasks of a cut by domain) there is
no distillation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.utils import parameters_to_vector

from methods.base import Batch, Context, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.current_task import CurrentTask
from methods.parts.distillation import sigmoid_distillation
from methods.parts.teachers import FrozenNet


@dataclass(frozen=True, slots=True)
class Config:
    wd_reg: float = 0.0  # weight of the squared norm of all parameters; EDD's comparison, Mammoth

    def __post_init__(self) -> None:
        if self.wd_reg < 0:
            raise ValueError(f"wd_reg must not be negative, got {self.wd_reg}")


class LwFMC(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LABELS, Signal.BOUNDARIES})

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.current = CurrentTask()
        self.teacher = FrozenNet(self.net)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)
        if self.current.past:
            self.teacher.take()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        past, seen = self.current.past, self.current.seen
        views = self.views(batch.x)
        old = self.teacher(views) if past else None
        stream = sigmoid_distillation(self.net(views)[:, :seen], batch.labels(), old, past)
        if not self.config.wd_reg:
            return {"stream": stream}
        norm = parameters_to_vector(self.net.parameters()).square().sum()
        return {"stream": stream, "decay": self.config.wd_reg * norm}

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "teacher": self.teacher}


build = LwFMC

"""PEC: one small network a class, and the class whose network errs least (Zając et al., 2024).

"Prediction Error-based Classification for Class-Incremental Learning" (arXiv:2305.18806). Every
student learns, from images of its class alone, the outputs of one frozen random network. A class's
score is the student's negative mean squared error. No student is touched by images of other
classes, so that nothing is forgotten and the order of classes does not matter; accuracy falls only
because more classes compete.

There is no backbone: the protocol's network is not used, nor its optimizer. Every student has an
Adam of its own, with the learning rate of this method. `pec_schedule: native` is that of the
released code: one pass over each task in batches of one image, not augmented, the learning rate of
each student falling evenly to 0; epochs, batch size and schedule of the protocol are not asked
then. Embeddings are the prediction errors of all classes, (B, C). Classes that were never trained
have scores as well: those of their initial weights, which are the same for all.

Deviations from the released code: tasks may have several classes; convolutional students alone, no
multilayer perceptron (which it uses for MNIST).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.base import Batch, Batches, Context, Losses, Planned, Signal, Stateful, TaskView
from methods.learners import GradientMethod
from methods.parts.current_task import CurrentTask
from methods.parts.prediction_errors import (
    RandomTeacher,
    Regressors,
    Shape,
    class_losses,
    prediction_errors,
)
from methods.parts.row_adam import RowAdam


@dataclass(frozen=True, slots=True)
class Config:
    """The network's defaults are the paper's for CIFAR-100."""

    width: int = 40  # channels of a student
    teacher_width: int = 100  # times those
    resolution: int = 4  # cells a side after pooling
    outputs: int = 172  # of teacher and students
    student_lr: float = 1e-3  # of each student's Adam
    pec_schedule: Literal["common", "native"] = "common"  # the protocol's epochs; the released code
    augment: bool = True  # the protocol's views in the common schedule; false: plain images
    teacher_batch: int = 16  # images a pass of the teacher; bounds memory, changes no result

    def __post_init__(self) -> None:
        for name in ("width", "teacher_width", "resolution", "outputs", "teacher_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.student_lr <= 0:
            raise ValueError(f"student_lr must be positive, got {self.student_lr}")


class PEC(GradientMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )
    predicts: ClassVar[bool] = True

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        side = min(planned.image_shape[1:])
        if config.resolution > side:
            raise ValueError(f"resolution is {config.resolution}, but images have {side} pixels")

    def __init__(self, config: Config, ctx: Context) -> None:
        self.config = config
        shape = Shape(ctx.image_shape, config.resolution, config.outputs)
        wide = config.width * config.teacher_width
        random = ctx.random.weights(lambda: Regressors(1, wide, shape), "teacher")
        self.teacher = RandomTeacher(random, config.teacher_batch).to(ctx.device)
        self.students = ctx.random.weights(
            lambda: Regressors(ctx.num_classes, config.width, shape), "students"
        )
        super().__init__(ctx, self.students)
        self.current = CurrentTask()

    def make_optimizer(self) -> RowAdam:
        return RowAdam(self.students.parameters(), self.config.student_lr)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        if self.config.pec_schedule == "common":
            yield from super().learn_task(task, batches)
            return
        self.optimizer = optimizer = self.make_optimizer()
        optimizer.decay_over(task.data.labels().bincount(minlength=self.ctx.num_classes))
        for batch in task.batches(1, epochs=1, rng=self.ctx.random("native")):
            yield self.observe(batch)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y, own = self._seen(batch.x), batch.labels(), self.current.own
        errors = prediction_errors(self.students.of_own(x, y, own), self.teacher(x))
        losses, present = class_losses(errors, y, own)
        assert isinstance(self.optimizer, RowAdam)
        self.optimizer.choose(own, present)
        return {"errors": losses.sum()}

    def _seen(self, x: Tensor) -> Tensor:
        """Raw images as the networks see them in training."""
        if self.config.augment and self.config.pec_schedule == "common":
            return self.ctx.augment(x, self.ctx.random("augment"))
        return self.ctx.normalize(x)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        images = self.ctx.normalize(x).split(self.config.teacher_batch)
        errors = [prediction_errors(self.students(some), self.teacher(some)) for some in images]
        return torch.cat(errors, dim=1).T

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # every class has a network of its own
        return -self.embed(x)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "teacher": self.teacher}


build = PEC

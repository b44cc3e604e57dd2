"""LwF: on the new images the outputs of past classes stay what they were before the task.

Learning without Forgetting (Li and Hoiem, 2016, arXiv:1606.09282). When a task begins, the head
alone learns the new classes; the network as it is then gives the targets. Without past classes
(the first task, all tasks of a cut by domain) neither is done. Deviations from Mammoth's `lwf`:
the targets are computed on the very input the network learns from, where Mammoth records them once
a task from images without normalisation (`stored_logits` records them from normalised images), and
`temperature` has an effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod, evaluating
from methods.parts.current_task import CurrentTask
from methods.parts.distillation import RecordedLogits, sharpened_distillation
from methods.parts.teachers import FrozenNet


@dataclass(frozen=True, slots=True)
class Config:
    alpha: float = 0.5  # weight of the distillation; EDD's comparison; Mammoth's best: 3, CIFAR-10
    temperature: float = 2.0  # EDD's comparison, Mammoth
    warmup_epochs: int | None = None  # of the head; null: the protocol's epochs, as Mammoth
    warmup_lr: float | None = None  # of its plain SGD; null: the protocol's, as Mammoth
    stored_logits: bool = False  # true: recorded once a task from plain images; near to Mammoth

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.warmup_epochs is not None and self.warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must not be negative, got {self.warmup_epochs}")
        if self.warmup_lr is not None and self.warmup_lr < 0:
            raise ValueError(f"warmup_lr must not be negative, got {self.warmup_lr}")


class LwF(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.current = CurrentTask()
        self.teacher = RecordedLogits(ctx.device) if config.stored_logits else FrozenNet(self.net)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)
        if not self.current.past:
            return
        self._warm_up(task)
        if isinstance(self.teacher, FrozenNet):
            self.teacher.take()
        else:
            self.teacher.record(task.data.index, self._past_logits(task.data.x))

    def _warm_up(self, task: TaskView) -> None:
        """Train the outputs of the task's classes on fixed features."""
        training, config, past = self.ctx.training, self.config, self.current.past
        lr = training.lr if config.warmup_lr is None else config.warmup_lr
        epochs = training.epochs if config.warmup_epochs is None else config.warmup_epochs
        optimizer = torch.optim.SGD(self.head.parameters(), lr=lr)
        # Draws of its own: the task itself shows the same views, whatever was done before it.
        order, rng = self.ctx.random("warm-up order"), self.ctx.random("warm-up augment")
        with evaluating(self.net):
            for batch in task.batches(training.batch_size, epochs=epochs, rng=order):
                with torch.no_grad():
                    features = self.backbone(self.ctx.augment(batch.x, rng))
                logits = self.head(features)[:, past : self.current.seen]
                optimizer.zero_grad()
                F.cross_entropy(logits, batch.labels() - past).backward()
                optimizer.step()

    @torch.no_grad()
    def _past_logits(self, x: Tensor) -> Tensor:
        """Outputs (N, past) for raw images without augmentation, in eval mode."""
        with evaluating(self.net):
            chunks = x.split(self.ctx.training.batch_size)
            logits = [self.net(self.ctx.normalize(chunk)) for chunk in chunks]
        return torch.cat([chunk[:, : self.current.past] for chunk in logits])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        past, seen = self.current.past, self.current.seen
        views = self.views(batch.x)
        logits = self.net(views)
        stream = F.cross_entropy(logits[:, :seen], batch.labels())
        if not past:
            return {"stream": stream}
        recorded = isinstance(self.teacher, RecordedLogits)
        targets = self.teacher(batch.index if recorded else views)[:, :past]
        kept = sharpened_distillation(logits[:, :past], targets, self.config.temperature)
        return {"stream": stream, "distillation": self.config.alpha * kept}

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "teacher": self.teacher}


build = LwF

"""LUCIR: a cosine classifier that keeps old and new classes in balance (Hou et al., CVPR 2019).

Features keep the direction that the previous network gave them, images of old classes a margin to
the new classes nearest to them; new class weights are imprinted; after every task the classifier
alone is fine-tuned on exemplars chosen by herding. While a task is learned, the weights of all
other classes stay as they are, bit for bit.

Deviations from the paper's code and from Mammoth's `lucir`:
- exemplars join the batches of the stream, so many each that an epoch passes over all of them
  about once; both concatenate them with the task's images, which makes more batches;
- fine-tuning runs with the backbone in eval mode, where Mammoth normalises by the batch; it leaves
  out the distillation, which does not depend on the classifier.
Deviations from Mammoth alone: the second task's lambda is lambda_base * sqrt(old / new), not 0; the
last ReLU of the backbone is taken out; the cross-entropy and the hardest negatives leave out
classes that were not seen; fine-tuning trains all class weights, and its learning rate falls after
10 epochs, not 10 steps. For the last four there are settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Batches, Context, Losses, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod, build_optimizer, evaluating
from methods.parts.balanced_memory import BalancedMemory
from methods.parts.cosine_head import CosineHead, margin_ranking
from methods.parts.current_task import CurrentTask
from methods.parts.deck import Deck
from methods.parts.exemplars import herded_of_each
from methods.parts.finetuning import Finetuning
from methods.parts.rehearsal import directions
from methods.parts.requirements import require_own_classes, require_room
from methods.parts.signed_features import remove_last_relu, require_last_relu
from methods.parts.teachers import FrozenNet
from methods.parts.transfers import sent


@dataclass(frozen=True, slots=True)
class Config:
    lambda_base: float = 5.0  # EDD's comparison; weight of the distillation
    lambda_mr: float = 1.0  # EDD's comparison; weight of the margin ranking
    margin: float = 0.5  # EDD's comparison
    hardest: int = 2  # K, new classes that an old image is compared with; the paper
    imprint: bool = True  # EDD's comparison
    finetune_epochs: int = 20  # EDD's comparison
    finetune_lr: float = 0.01  # EDD's comparison
    finetune_blocks: Literal["all", "new"] = "all"  # the paper; new: Mammoth
    decay_by: Literal["epoch", "step"] = "epoch"  # the paper; step: Mammoth
    decay_after: int = 10  # epochs or steps, then a tenth of finetune_lr; Mammoth
    outputs: Literal["seen", "all"] = "seen"  # the paper; all: Mammoth
    remove_last_relu: bool = True  # the paper; false: Mammoth
    native_optimizer: bool = False  # SGD with momentum 0.9 in place of the protocol's
    native_lr: float = 0.03  # of it; Mammoth's best for CIFAR-100 with 500 images

    def __post_init__(self) -> None:
        for name in ("lambda_base", "lambda_mr", "finetune_epochs", "finetune_lr", "native_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("hardest", "decay_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def finetuning(self, batch_size: int) -> Finetuning:
        """Of the classifier, with batches of the protocol's size."""
        return Finetuning(
            self.finetune_epochs, batch_size, self.finetune_lr, self.decay_by, self.decay_after
        )


class LUCIR(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        require_own_classes(planned)
        require_room(planned, planned.num_classes, "classes")
        if config.remove_last_relu:
            require_last_relu(planned.backbone)

    def __init__(self, config: Config, ctx: Context) -> None:
        self.config = config
        super().__init__(ctx)
        self.classifier = cast("CosineHead", self.head)
        if config.remove_last_relu:
            remove_last_relu(self.backbone)
        self.current = CurrentTask()
        self.exemplars = BalancedMemory(ctx.training.buffer_size, ctx.device)
        self.deck = Deck()
        self._rows = torch.empty(0, dtype=torch.int64)  # of the exemplars that join the batch
        self.teacher = FrozenNet(self.backbone)
        self.finetuning = config.finetuning(ctx.training.batch_size)
        self._before = self.classifier.weight.detach()  # as it was before the step

    def make_head(self, ctx: Context) -> CosineHead:
        return CosineHead(self.backbone.feature_dim, ctx.num_classes)

    def make_optimizer(self) -> torch.optim.Optimizer:
        if not self.config.native_optimizer:
            return super().make_optimizer()
        lr = self.config.native_lr
        native = replace(self.ctx.training, optimizer="sgd", lr=lr, momentum=0.9)
        return build_optimizer(self.net.parameters(), native)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)
        if self.current.first:
            return
        data, size = task.data, self.ctx.training.batch_size
        self.deck.begin(len(self.exemplars), batches=ceil(len(data.x) / size))
        if self.config.imprint:
            self.classifier.imprint(task.classes, directions(self.embed, data.x), data.labels())

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        yield from super().learn_task(task, batches)
        self.teacher.take()
        self._choose_exemplars(task)
        rows, rng = len(self.exemplars), self.ctx.random("finetune")
        yield from self.finetuning.run(self.classifier, self._finetune_loss, rows, rng)

    def before_passes(self, batch: Batch) -> None:
        del batch
        if self.current.past:
            self._rows = self.deck.draw(len(self.exemplars), self.ctx.random("replay"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch.x, batch.labels()
        if self.current.past:
            old_x, old_y = self._stored(self._rows)
            x, y = torch.cat([x, old_x]), torch.cat([y, old_y])
        views = self.views(x)
        features = self.backbone(views)
        terms = self._classification(self.classifier.cosines(features, self.current.own), y)
        if self.current.past:
            distance = (1 - F.cosine_similarity(features, self.teacher(views))).mean()
            terms["distillation"] = self.distillation_weight * distance
        return terms

    @property
    def distillation_weight(self) -> float:
        """Lambda: the more, the fewer the new classes are beside the old ones."""
        return self.config.lambda_base * sqrt(self.current.past / len(self.current.own))

    def _classification(self, cosines: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The losses on unscaled cosines (B, C)."""
        config, past = self.config, self.current.past
        if config.outputs == "seen":
            cosines = cosines[:, : self.current.seen]
        terms = {"cross_entropy": F.cross_entropy(self.classifier.scale * cosines, y)}
        if past:
            ranking = margin_ranking(cosines, y, past, hardest=config.hardest, margin=config.margin)
            terms["margin"] = config.lambda_mr * ranking
        return terms

    def adjust_gradients(self) -> None:
        self._before = self.classifier.weight.detach().clone()

    @torch.no_grad()
    def after_step(self) -> None:
        # Weight decay and momentum move what has no gradient.
        for others in (slice(self.current.past), slice(self.current.seen, None)):
            self.classifier.weight[others] = self._before[others]

    def _choose_exemplars(self, task: TaskView) -> None:
        data, share = task.data, self.exemplars.capacity // task.classes.stop
        rows = herded_of_each(data.labels(), share, directions(self.embed, data.x))
        rows = sent(rows, data.x.device)
        new = {"x": data.x[rows], "y": data.labels()[rows]}
        self.exemplars.renew(new, by="y", keep=share)

    def _finetune_loss(self, rows: Tensor) -> dict[str, Tensor]:
        """Losses of the classifier alone on these rows of the memory."""
        x, y = self._stored(rows)
        with evaluating(self.net), torch.no_grad():
            features = self.backbone(self.views(x))
        all_seen = self.config.finetune_blocks == "all"
        trained = range(self.current.seen) if all_seen else self.current.own
        return self._classification(self.classifier.cosines(features, trained), y)

    def _stored(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of the exemplars in these rows of the CPU."""
        stored, rows = self.exemplars.everything(), sent(rows, self.ctx.device)
        return stored["x"][rows], stored["y"][rows]

    def parts(self) -> dict[str, Stateful]:
        mine = {"current": self.current, "exemplars": self.exemplars}
        return {**super().parts(), **mine, "deck": self.deck, "teacher": self.teacher}


build = LUCIR

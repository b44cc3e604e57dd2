"""iCaRL: the class whose exemplars are nearest, on features that follow the old network.

Incremental Classifier and Representation Learning (Rebuffi et al., 2017, arXiv:1611.07725): past
classes are rehearsed with exemplars chosen by herding, their outputs are distilled from the network
before the task, and images are classified by the nearest mean of exemplars. `predict` gives the
scores of that classifier, `class_logits` the outputs of the head it was trained with.

Deviations from the paper:
- the loss is a cross-entropy over the classes seen plus a distillation of the past ones at a
  temperature, as in PyCIL (github.com/G-U-N/PyCIL, models/icarl.py), where the paper has a sigmoid
  for every class; `icarl_loss: bce` is the paper's, over the classes seen (the paper's code,
  github.com/srebuffi/iCaRL, has those to come as well);
- each class keeps its quota from the start, as in BrainCL's comparison (arXiv:2504.14727), where
  the paper shares out the whole memory; `quota: total` does that;
- how exemplars join the batches: `methods.parts.rehearsal`.
Outputs of classes not seen yet get no gradient, but weight decay makes their weights smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Stateful, TaskView
from methods.parts.distillation import sharpened_distillation, sigmoid_distillation
from methods.parts.exemplars import herded_of_each
from methods.parts.rehearsal import Quota, RehearsalMethod, directions, joined
from methods.parts.requirements import require_finite
from methods.parts.teachers import FrozenNet

UNSEEN = -8.0
"""Score of a class without exemplars: two directions are at most 2 apart, so that -4 is the least
of the others. Finite, unlike a minus infinity, for whoever computes with scores."""


@dataclass(frozen=True, slots=True)
class Config:
    icarl_loss: Literal["softmax", "bce"] = "softmax"  # PyCIL; bce: the paper
    kd_weight: float = 1.0  # of the softmax loss; PyCIL
    kd_temperature: float = 2.0  # of the softmax loss; PyCIL
    quota: Quota = "per_class"  # BrainCL's comparison; total: the paper, PyCIL's default
    flip_means: bool = False  # means over mirrored exemplars too, as the paper's code

    def __post_init__(self) -> None:
        require_finite(self, "kd_weight")
        require_finite(self, "kd_temperature", above_zero=True)


class ICaRL(RehearsalMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx, config.quota)
        self.config = config
        self.teacher = FrozenNet(self.net)
        self._means: Tensor | None = None  # by network and exemplars as they are; None: not yet

    def begin_task(self, task: TaskView) -> None:
        super().begin_task(task)
        if self.current.past:
            self.teacher.take()

    def before_passes(self, batch: Batch) -> None:
        super().before_passes(batch)
        self._means = None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = joined(batch, self.drawn)
        views, past = self.views(x), self.current.past
        logits = self.net(views)[:, : self.current.seen]
        old = self.teacher(views)[:, :past] if past else None
        if self.config.icarl_loss == "bce":
            return {"stream": sigmoid_distillation(logits, y, old, past)}
        terms = {"cross_entropy": F.cross_entropy(logits, y)}
        if old is not None:
            kept = sharpened_distillation(logits[:, :past], old, self.config.kd_temperature)
            terms["distillation"] = self.config.kd_weight * kept
        return terms

    def end_task(self, task: TaskView) -> None:
        data = task.data
        found = directions(self.embed, data.x)
        self.rehearsal.renew(
            data, self.current.seen, lambda y, share: herded_of_each(y, share, found)
        )
        self._means = None
        super().end_task(task)
        self.teacher.drop()  # the next task has a new one

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        """Minus the squared distances (B, num_classes) to the means of exemplars.

        Of a class without exemplars `UNSEEN`; 0 for all as long as there are none at all.
        """
        del task  # one classifier for all tasks
        scores = torch.full((len(x), self.ctx.num_classes), UNSEEN, device=self.ctx.device)
        if not len(self.rehearsal):
            return scores.zero_()
        means = self.class_means()
        # Unit vectors: |f - m|^2 = 2 - 2 f m, which no sum over (B, C, D) is needed for.
        scores[:, : len(means)] = 2 * directions(self.embed, x) @ means.T - 2
        return scores

    def class_logits(self, x: Tensor) -> Tensor:
        """Outputs (B, num_classes) of the head, which trains the features."""
        return super().predict(x)

    @torch.no_grad()
    def class_means(self) -> Tensor:
        """Directions (C, D) of the means of exemplars of the C classes that have some.

        By the network as it is, without augmentation; kept until network or exemplars change.
        """
        if self._means is None:
            held = self.rehearsal.everything()
            found = directions(self.embed, held["x"])
            if self.config.flip_means:
                found = found + directions(self.embed, held["x"].flip(-1))
            own = F.one_hot(held["y"]).to(found.dtype)
            self._means = F.normalize(own.T @ found)  # a sum points where the mean does
        return self._means

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "teacher": self.teacher}


build = ICaRL

"""EWC: parameters are held at the last task's by a Fisher information averaged over the classes.

Elastic weight consolidation (Kirkpatrick et al., 2017, arXiv:1612.00796), with one penalty instead
of one a task: old and new information are averaged as past and new classes are many, as in PyCIL
(github.com/G-U-N/PyCIL, models/ewc.py), where `ewc_online` adds them up. The cross-entropy is over
the task's own classes alone, as there; `outputs: seen` is over all seen so far. Class-incremental
accuracy comes out close to finetuning's: nothing compares old classes with new ones. A task of one
class has nothing to compare at all and teaches nothing (`outputs: seen` does).

Deviations from PyCIL: the Fisher information is that of single images, where PyCIL squares the mean
gradient of a batch of 128, which is far smaller, so that the same `fisher_clip` binds for many
weights (two thirds on Fashion-MNIST after five epochs) and the penalty comes near to a plain L2;
and it is taken from plain images in eval mode, where PyCIL's training mode moves the statistics of
batch normalisation. Outputs of classes not seen yet have no information and no penalty, but weight
decay makes their weights smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.current_task import CurrentTask
from methods.parts.fisher import drawn, fisher_diagonal
from methods.parts.flat_gradients import flat_parameters, pieces
from methods.parts.importance import ParameterVectors
from methods.parts.requirements import require_finite, require_own_classes


@dataclass(frozen=True, slots=True)
class Config:
    ewc_lambda: float = 1000.0  # strength of the penalty; PyCIL
    fisher_clip: float | None = 1e-4  # no parameter counts more; PyCIL; null: no bound
    fisher_samples: int | None = None  # images of a task, drawn at random; null: all, as PyCIL
    outputs: Literal["new", "seen"] = "new"  # of the cross-entropy; PyCIL

    def __post_init__(self) -> None:
        require_finite(self, "ewc_lambda")
        if self.fisher_clip is not None:
            require_finite(self, "fisher_clip", above_zero=True)
        if self.fisher_samples is not None and self.fisher_samples < 1:
            raise ValueError(f"fisher_samples must be at least 1, got {self.fisher_samples}")


class EWC(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_own_classes(planned)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.current = CurrentTask()
        self.weights = [p for p in self.net.parameters() if p.requires_grad]
        self.held = ParameterVectors(ctx.device)

    def begin_task(self, task: TaskView) -> None:
        self.current.begin(task)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first = self.current.past if self.config.outputs == "new" else 0
        logits = self.net(self.views(batch.x))[:, first : self.current.seen]
        stream = F.cross_entropy(logits, batch.labels() - first)
        if not self.held:
            return {"stream": stream}
        strayed = parameters_to_vector(self.weights) - self.held["anchor"]
        penalty = (self.held["fisher"] * strayed.square()).sum() / 2
        return {"stream": stream, "penalty": self.config.ewc_lambda * penalty}

    def end_task(self, task: TaskView) -> None:
        fisher = self.fisher(task.data)
        if self.held:
            old_share = self.old_share()
            fisher = old_share * self.held["fisher"] + (1 - old_share) * fisher
        self.held.put(fisher=fisher, anchor=flat_parameters(self.weights))

    def fisher(self, data: Batch) -> Tensor:
        """The clipped Fisher diagonal (P,) of the network as it is, over the classes seen."""
        seen = self.current.seen

        def cross_entropy(outputs: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(outputs[:, :seen], label)

        images = drawn(data, self.config.fisher_samples, self.ctx.random("fisher"))
        found = fisher_diagonal(self.net, images, cross_entropy, self.ctx.normalize)
        bound = self.config.fisher_clip
        return found if bound is None else found.clamp(max=bound)

    def old_share(self) -> Tensor:
        """Share of the old information in the new average, (P,): past over seen classes.

        0 in the rows of the head that are new with the task, which have no old information.
        """
        share = torch.full_like(self.held["fisher"], self.current.past / self.current.seen)
        head = {*self.head.parameters()}
        for parameter, piece in zip(self.weights, pieces(self.weights, share), strict=True):
            if parameter in head:
                piece[self.current.past :] = 0
        return share

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "current": self.current, "held": self.held}


build = EWC

"""Online EWC: parameters are held at the last task's by their accumulated Fisher information.

Elastic weight consolidation (Kirkpatrick et al., 2017, arXiv:1612.00796) with one running penalty
for all tasks (Schwarz et al., 2018, arXiv:1805.06370). The squared gradient of an image's
log-likelihood is weighted by the probability of its label, as in Mammoth's `ewc_on`;
`fisher: empirical` leaves the weight out. Deviations from Mammoth: the Fisher information is taken
in eval mode, where Mammoth takes each image in training mode, normalised by itself, and spoils the
running statistics; from plain images instead of augmented ones; and it is divided by the number of
images, not of batches times their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from methods.base import Batch, Context, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.fisher import fisher_diagonal
from methods.parts.flat_gradients import flat_parameters
from methods.parts.importance import ParameterVectors
from methods.parts.sample_gradients import SampleLoss
from methods.parts.transfers import sent


@dataclass(frozen=True, slots=True)
class Config:
    e_lambda: float = 10.0  # strength of the penalty; EDD's comparison, Mammoth's best, CIFAR-10
    fisher_gamma: float = 1.0  # share of the old Fisher information that is kept; EDD's comparison
    fisher: Literal["weighted", "empirical"] = "weighted"  # Mammoth
    fisher_samples: int | None = None  # images of a task, drawn at random; null: all, as Mammoth

    def __post_init__(self) -> None:
        if self.e_lambda < 0:
            raise ValueError(f"e_lambda must not be negative, got {self.e_lambda}")
        if not 0 <= self.fisher_gamma <= 1:
            raise ValueError(f"fisher_gamma must be between 0 and 1, got {self.fisher_gamma}")
        if self.fisher_samples is not None and self.fisher_samples < 1:
            raise ValueError(f"fisher_samples must be at least 1, got {self.fisher_samples}")


def weighted(outputs: Tensor, label: Tensor) -> Tensor:
    """A function whose squared gradient is p times that of log p, p the label's probability.

    d/dw 2 sqrt(p) = sqrt(p) d/dw log p.
    """
    return 2 * (-F.cross_entropy(outputs, label) / 2).exp()


LOSSES: dict[str, SampleLoss] = {"weighted": weighted, "empirical": F.cross_entropy}


class EWCOnline(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.weights = [p for p in self.net.parameters() if p.requires_grad]
        self.held = ParameterVectors(ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        stream = F.cross_entropy(self.net(self.views(batch.x)), batch.labels())
        if not self.held:
            return {"stream": stream}
        strayed = parameters_to_vector(self.weights) - self.held["anchor"]
        penalty = (self.held["fisher"] * strayed.square()).sum()
        return {"stream": stream, "penalty": self.config.e_lambda * penalty}

    def end_task(self, task: TaskView) -> None:
        fisher = self.fisher(task.data)
        if self.held:
            fisher += self.config.fisher_gamma * self.held["fisher"]
        self.held.put(fisher=fisher, anchor=flat_parameters(self.weights))

    def fisher(self, data: Batch) -> Tensor:
        """The diagonal of the Fisher information of the network as it is, (P,)."""
        if self.config.fisher_samples is not None:
            order = torch.randperm(len(data.x), generator=self.ctx.random("fisher"))
            rows = sent(order[: self.config.fisher_samples], data.x.device)
            data = Batch(data.x[rows], data.labels()[rows], rows)
        return fisher_diagonal(self.net, data, LOSSES[self.config.fisher], self.ctx.normalize)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "held": self.held}


build = EWCOnline

"""SI: parameters along which a task brought the loss down are held where they were.

Synaptic Intelligence (Zenke et al., 2017, arXiv:1703.04200). Every step adds gradient times
movement to a path integral, with the gradient of the cross-entropy alone; Mammoth did so from
September 2024 (its issue 50), and before took the learning rate times the squared gradient of
everything. Deviations: gradients are clipped as in Mammoth, which the paper does not do
(`clip: null`). Importances are kept at 0 or above as in the paper's released code; with
`clamp_omega: false`, as in Mammoth, a negative one pushes its parameter away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.flat_gradients import flat_gradient, flat_parameters, set_gradient
from methods.parts.importance import ParameterVectors


@dataclass(frozen=True, slots=True)
class Config:
    c: float = 0.5  # strength of the penalty; EDD's comparison, Mammoth's best settings
    xi: float = 0.9  # damping; EDD's comparison (there zeta); Mammoth's best settings: 1
    clip: float | None = 1.0  # of every element of the gradient, penalty included; Mammoth
    clamp_omega: bool = True  # the paper's released code

    def __post_init__(self) -> None:
        if self.c < 0:
            raise ValueError(f"c must not be negative, got {self.c}")
        if self.xi <= 0:
            raise ValueError(f"xi must be above 0, got {self.xi}")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be above 0, or null for no clipping, got {self.clip}")


class SI(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LABELS, Signal.BOUNDARIES})

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.weights = [p for p in self.net.parameters() if p.requires_grad]
        start = flat_parameters(self.weights)
        nothing = torch.zeros_like(start)
        self.held = ParameterVectors(ctx.device)
        self.held.put(anchor=start, path=nothing.clone(), omega=nothing)
        self._before = self._gradient = nothing  # of the step under way

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"stream": F.cross_entropy(self.net(self.views(batch.x)), batch.labels())}

    def adjust_gradients(self) -> None:
        """Add the gradient of the penalty, c * sum of omega * (parameter - anchor)^2."""
        self._before = flat_parameters(self.weights)
        self._gradient = flat_gradient(self.weights)
        strayed = self._before - self.held["anchor"]
        adjusted = self._gradient + 2 * self.config.c * self.held["omega"] * strayed
        if self.config.clip is not None:
            adjusted = adjusted.clamp(-self.config.clip, self.config.clip)
        set_gradient(self.weights, adjusted)

    def after_step(self) -> None:
        moved = self._before - flat_parameters(self.weights)
        self.held["path"].addcmul_(self._gradient, moved)

    def end_task(self, task: TaskView) -> None:
        del task
        here = flat_parameters(self.weights)
        strayed = here - self.held["anchor"]
        omega = self.held["omega"] + self.held["path"] / (strayed.square() + self.config.xi)
        if self.config.clamp_omega:
            omega = omega.clamp(min=0)
        self.held.put(anchor=here, path=torch.zeros_like(here), omega=omega)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "held": self.held}


build = SI

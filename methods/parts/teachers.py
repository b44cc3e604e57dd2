"""Copies of the network that give targets: a moving average of it, or what it was at some time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods.base import Backbone, Objective
from methods.parts.bytes_held import module_nbytes

TeacherNorm = Literal["batch", "copy", "frozen"]
"""How a teacher normalises: by its own batch, or by running statistics, copied at every `follow`
or kept as they were."""


@final
class Teacher(nn.Module):
    """A copy of encoder and projector without gradients.

    With `norm` "batch" it stays in training mode, as in the released code of CLA
    (github.com/giacomo-cgn/ocl-self-supervised): batch normalisation uses the statistics of the
    teacher's own batch, in which all views are together.
    """

    kind = "teachers"

    def __init__(self, backbone: Backbone, objective: Objective, norm: TeacherNorm) -> None:
        super().__init__()
        self.net = nn.Sequential(copy.deepcopy(backbone), copy.deepcopy(objective.projector))
        self.net.requires_grad_(requires_grad=False)
        self.net.train(norm == "batch")
        self._copy_statistics = norm == "copy"

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

    @torch.no_grad()
    def forward(self, views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Projections (B, D) of each normalised view (B, C, H, W)."""
        return self.net(torch.cat(views)).chunk(len(views))

    @torch.no_grad()
    def follow(self, backbone: Backbone, objective: Objective, momentum: float) -> None:
        """Move the parameters: momentum * own + (1 - momentum) * the network's."""
        own: list[Tensor] = [*self.net.parameters()]
        live: list[Tensor] = [*backbone.parameters(), *objective.projector.parameters()]
        get_ema_multi_avg_fn(momentum)(own, live, 0)
        if self._copy_statistics:
            statistics = [*backbone.buffers(), *objective.projector.buffers()]
            for ours, current in zip(self.net.buffers(), statistics, strict=True):
                ours.copy_(current)


@final
class Snapshot:
    """The network as it was when `take` was called last; holds nothing before that.

    Args:
        backbone: the network's encoder.
        objective: its projector is copied as well.
        norm: see `TeacherNorm`; "frozen" uses the running statistics of that time.
    """

    kind = "teachers"

    def __init__(self, backbone: Backbone, objective: Objective, norm: TeacherNorm) -> None:
        self._copy = partial(Teacher, backbone, objective, norm)
        self.teacher: Teacher | None = None

    def take(self) -> None:
        """Remember the network as it is now."""
        self.teacher = self._copy()

    @property
    def nbytes(self) -> int:
        return 0 if self.teacher is None else self.teacher.nbytes

    def state_dict(self) -> dict[str, Any]:
        return {} if self.teacher is None else {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.teacher = None
        if state_dict:
            self.teacher = self._copy()
            self.teacher.load_state_dict(state_dict["teacher"])


@final
class FrozenNet:
    """A whole network as it was when `take` was called last, in eval mode and without gradients.

    Args:
        net: the live network.
        fit: gives a copy of it the shapes in a saved state, if it grows.
    """

    kind = "teachers"

    def __init__(
        self, net: nn.Module, fit: Callable[[nn.Module, Mapping[str, Any]], None] | None = None
    ) -> None:
        self._live = net
        self._fit = fit
        self.net: nn.Module | None = None

    def take(self) -> nn.Module:
        """Remember the network as it is now; the copy."""
        self.net = copy.deepcopy(self._live).requires_grad_(requires_grad=False).eval()
        return self.net

    def drop(self) -> None:
        """Forget it."""
        self.net = None

    def __bool__(self) -> bool:
        return self.net is not None

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:  # noqa: ANN401 - whatever the network gives
        """What the copy says.

        Raises:
            RuntimeError: if nothing was taken yet.
        """
        if self.net is None:
            raise RuntimeError("no teacher was taken yet")
        return self.net(*inputs)

    @property
    def nbytes(self) -> int:
        return 0 if self.net is None else module_nbytes(self.net)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.net is None else {"net": self.net.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.net = None
        if state_dict:
            copied, state = self.take(), state_dict["net"]
            if self._fit is not None:
                self._fit(copied, state)
            copied.load_state_dict(state)

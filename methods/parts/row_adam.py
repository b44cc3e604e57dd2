"""Many Adams side by side: one for every row of stacked parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, log
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@final
class RowAdam(Optimizer):
    """Adam (Kingma and Ba, 2015, arXiv:1412.6980) for parameters (C, ...), each row on its own.

    A row has its own count of steps. One that is not chosen for a step keeps weights and moments
    bit for bit, and which rows are chosen may be known on the device alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8})
        for parameter in self.param_groups[0]["params"]:
            rows = parameter.new_zeros(len(parameter)).detach()
            self.state[parameter] = {
                "mean": torch.zeros_like(parameter),
                "square": torch.zeros_like(parameter),
                "steps": rows,
                "horizon": torch.full_like(rows, inf),
            }
        self._rows = range(0)
        self._chosen: Tensor | None = None

    def choose(self, rows: range, chosen: Tensor) -> None:
        """The next step is for those of these consecutive rows where `chosen`, bool (n,), holds."""
        self._rows, self._chosen = rows, chosen

    def decay_over(self, steps: Tensor) -> None:
        """Let the learning rate of each row fall evenly to 0 in so many of its steps, (C,)."""
        for state in self.state.values():
            state["horizon"].copy_(steps.clamp(min=1))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore
        """One step of the rows chosen; the learning rate is the group's.

        Raises:
            RuntimeError: if `choose` was not called since the last one.
        """
        del closure
        if self._chosen is None:
            raise RuntimeError("no rows were chosen for this step")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, self._chosen.to(parameter.dtype), group)
        self._chosen = None

    def _step(self, parameter: nn.Parameter, chosen: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        own = slice(self._rows.start, self._rows.stop)
        mean, square, steps, horizon = (
            self.state[parameter][name][own] for name in ("mean", "square", "steps", "horizon")
        )
        rate = group["lr"] * chosen * (1 - steps / horizon).clamp(min=0)
        steps += chosen
        shape, gradient = (-1, *[1] * (parameter.ndim - 1)), parameter.grad[own]
        unbiased: list[Tensor] = []
        samples = ((mean, gradient), (square, gradient.square()))
        for (moment, sample), beta in zip(samples, group["betas"], strict=True):
            moment.lerp_(sample, ((1 - beta) * chosen).view(shape))
            # 1 - beta^steps; a row that has not begun has moments of 0, whatever divides them.
            unbiased.append(moment / -torch.expm1(steps.clamp(min=1) * log(beta)).view(shape))
        first, second = unbiased
        parameter[own].addcdiv_(first * -rate.view(shape), second.sqrt_().add_(group["eps"]))

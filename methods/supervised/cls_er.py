"""CLS-ER: replay with two averages of the network as teachers.

The plastic average moves more often than the stable one; the target of a replayed image is the
logits of the one that finds its class more probable (Arani et al., 2022, arXiv:2201.12604).
Deviations from the released code (github.com/NeurAI-Lab/CLS-ER): the averages normalise by running
statistics, copied from the network whenever they move, where the released ones normalise by the
replayed batch; stream and memory go through the network together, once, for both losses, where the
released code passes the memory through it a second time for the consistency loss.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods.base import Batch, Context, Stateful
from methods.learners import ClassifierMethod, evaluating
from methods.parts.buffers import Buffer, reservoir
from methods.parts.bytes_held import module_nbytes


@dataclass(frozen=True, slots=True)
class Config:
    """An average moves in a step with probability `update_freq`; `evaluate` is what is measured."""

    reg_weight: float = 0.1  # these five: the released code
    stable_alpha: float = 0.999
    stable_update_freq: float = 0.7
    plastic_alpha: float = 0.999
    plastic_update_freq: float = 0.9
    evaluate: Literal["stable", "plastic", "working"] = "stable"  # the paper

    def __post_init__(self) -> None:
        if self.reg_weight < 0:
            raise ValueError(f"reg_weight must not be negative, got {self.reg_weight}")
        for kind in ("stable", "plastic"):
            for name in (f"{kind}_alpha", f"{kind}_update_freq"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@final
class MovingAverage:
    """An average of the network's weights over its steps, in eval mode and without gradients.

    Args:
        net: the live network.
        alpha: what the average keeps of itself, at most; less at first.
        update_freq: the probability that it moves in a step.
    """

    kind = "teachers"

    def __init__(self, net: nn.Module, *, alpha: float, update_freq: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(requires_grad=False).eval()
        self.steps = 0
        self._live = net
        self._alpha = alpha
        self._update_freq = update_freq

    def follow(self, rng: torch.Generator) -> None:
        """The network has made a step."""
        self.steps += 1
        if float(torch.rand((), generator=rng)) >= self._update_freq:
            return
        alpha = min(1 - 1 / (self.steps + 1), self._alpha)
        own: list[Tensor] = [*self.net.parameters()]
        live: list[Tensor] = [*self._live.parameters()]
        get_ema_multi_avg_fn(alpha)(own, live, 0)
        for ours, current in zip(self.net.buffers(), self._live.buffers(), strict=True):
            ours.copy_(current)

    @property
    def nbytes(self) -> int:
        return module_nbytes(self.net)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "net": self.net.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.steps = state_dict["steps"]
        self.net.load_state_dict(state_dict["net"])


def more_confident(first: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """Of two logits (N, C) for each image those that make its class `y` (N,) more probable."""
    ours, theirs = (z.softmax(1).gather(1, y[:, None]) for z in (first, second))
    return torch.where(ours > theirs, first, second)


class CLSER(ClassifierMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, rng, ctx.device)
        self.stable = MovingAverage(
            self.net, alpha=config.stable_alpha, update_freq=config.stable_update_freq
        )
        self.plastic = MovingAverage(
            self.net, alpha=config.plastic_alpha, update_freq=config.plastic_update_freq
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        views, y = self.views(batch.x), batch.labels()
        if not len(self.buffer):
            return {"cross_entropy": F.cross_entropy(self.net(views), y)}
        old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        old_views = self.views(old["x"])
        with torch.no_grad():
            targets = more_confident(
                self.stable.net(old_views), self.plastic.net(old_views), old["y"]
            )
        logits = self.net(torch.cat([views, old_views]))
        return {
            "cross_entropy": F.cross_entropy(logits, torch.cat([y, old["y"]])),
            "consistency": self.config.reg_weight * F.mse_loss(logits[len(views) :], targets),
        }

    def after_step(self) -> None:
        rng = self.ctx.random("averages")
        self.plastic.follow(rng)
        self.stable.follow(rng)

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x, y=batch.labels())

    def parts(self) -> dict[str, Stateful]:
        held = {"buffer": self.buffer, "stable": self.stable, "plastic": self.plastic}
        return {**super().parts(), **held}

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        net = self._measured()
        with evaluating(net):
            return net[0](self.ctx.normalize(x))

    @torch.no_grad()
    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        del task  # one head for all tasks
        net = self._measured()
        with evaluating(net):
            return net(self.ctx.normalize(x))

    def _measured(self) -> nn.Sequential:
        averages = {"stable": self.stable.net, "plastic": self.plastic.net}
        return cast("nn.Sequential", averages.get(self.config.evaluate, self.net))


build = CLSER

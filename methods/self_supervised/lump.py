"""LUMP: the objective on mixtures of stream and replayed views.

Madaan et al., 2022, arXiv:2110.06976, as an online method in CLA (Cignoni et al., CoLLAs 2025): a
reservoir buffer, as many replayed images as the stream brings, one mixing weight a step for both
views. It begins to mix once the buffer holds more images than a stream batch; the original mixes
as soon as it holds any. The protocol's `replay_batch` is not used. Deviation: the buffer keeps no
features, which CLA's released code refreshes (with those of the mixtures) but never uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.buffers import Buffer, reservoir
from methods.parts.replay import require_replay, with_replay


@dataclass(frozen=True, slots=True)
class Config:
    alpha: float = 0.4  # of Beta(alpha, alpha); LUMP, released code

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")


class LUMP(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_replay(planned.training, planned.training.batch_size)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, ctx.random("buffer"), ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, replayed = with_replay(self.buffer, batch.x, len(batch.x), self.ctx.random("replay"))
        views = self.views(x)
        if replayed is not None:
            weight = beta(self.config.alpha, self.ctx.random("mix"))
            views = tuple(_mixture(view, weight) for view in views)
        return {"ssl": self.embeddings(views).loss}

    def remember(self, batch: Batch) -> None:
        self.buffer.add(x=batch.x)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


def _mixture(view: Tensor, weight: float) -> Tensor:
    """Stream images (the second half) by `weight`, replayed ones (the first) by the rest."""
    replayed, stream = view.chunk(2)
    return torch.lerp(replayed, stream, weight)


def beta(alpha: float, rng: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha), as X / (X + Y) of two Gamma(alpha) draws on the CPU."""
    shape = torch.full((2,), alpha, dtype=torch.float64)
    # torch.distributions draws the same way, but from the global generator alone.
    gamma = torch._standard_gamma(shape, generator=rng)  # pyright: ignore[reportPrivateImportUsage]
    first, second = gamma.tolist()
    total = first + second
    return first / total if total else 0.5  # both may underflow for a tiny alpha


build = LUMP

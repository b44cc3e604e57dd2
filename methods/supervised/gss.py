"""GSS: replay of images whose gradients differ (Aljundi et al., 2019, arXiv:1903.08671).

The greedy variant, which judges a batch as a whole before its images, as Mammoth's `gss` does; in
the paper every image is judged by itself. Deviation from Mammoth: gradients are those of normalised
images, where it takes them as they are stored.
Who enters is decided on the host: a step waits for the score of the batch, and, with a full buffer,
for those of its images where some of them may enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Stateful
from methods.learners import ClassifierMethod, evaluating
from methods.parts.buffers import Buffer
from methods.parts.gradient_scores import (
    FIRST_SCORE,
    Comparison,
    FullComparison,
    GreedySelection,
    HeadComparison,
)


@dataclass(frozen=True, slots=True)
class Config:
    """`gss_batch` images of the buffer are compared with a batch; None: `replay_batch`.

    `grad_scope` says by which gradients: `all` parameters', held once for each of these images, or
    the linear `head`'s, which cost no backward pass. `chunk` gradients of images are computed side
    by side; it bounds the working memory of `all`.
    """

    gss_batch: int | None = None  # Mammoth
    grad_scope: Literal["all", "head"] = "all"  # the paper
    chunk: int = 16

    def __post_init__(self) -> None:
        for name in ("gss_batch", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class GSS(ClassifierMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.selection = GreedySelection()
        capacity, rng = ctx.training.buffer_size, ctx.random("buffer")
        self.buffer = Buffer(capacity, self.selection, rng, ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch.x, batch.labels()
        if len(self.buffer):
            old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
            x, y = torch.cat([x, old["x"]]), torch.cat([y, old["y"]])
        return {"cross_entropy": F.cross_entropy(self.net(self.views(x)), y)}

    def remember(self, batch: Batch) -> None:
        with evaluating(self.net):
            self.selection.judge(*self._scores(batch))
        self.buffer.add(x=batch.x, y=batch.labels())

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer, "selection": self.selection}

    def _scores(self, batch: Batch) -> tuple[float, Sequence[float]]:
        """Score of the batch, and if need be of each image that finds no empty slot."""
        empty = self.buffer.capacity - len(self.buffer)
        if not len(self.buffer):
            return FIRST_SCORE, [FIRST_SCORE] * max(len(batch.x) - empty, 0)
        x, y = self.ctx.normalize(batch.x), batch.labels()
        comparison = self._comparison()
        together = comparison.batch(x, y).item()
        if len(x) <= empty or together >= 1:
            return together, ()  # most batches end here, which spares them a gradient an image
        each: list[float] = comparison.samples(x[empty:], y[empty:]).tolist()
        return together, each

    def _comparison(self) -> Comparison:
        """With the gradients of random images of the buffer."""
        size = self.config.gss_batch or self.ctx.training.replay_batch
        old = self.buffer.sample(size, self.ctx.random("gss"))
        x, y = self.ctx.normalize(old["x"]), old["y"]
        if self.config.grad_scope == "head":
            return HeadComparison(self.backbone, self.head, x, y)
        return FullComparison(self.net, x, y, chunk=self.config.chunk)


build = GSS

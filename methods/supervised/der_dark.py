"""Dark Experience Replay and DER++ (Buzzega et al., 2020, arXiv:2004.07211): replay the logits.

Images enter a reservoir with the logits that they had when they came: of the random view that was
trained on, in training mode, before the step. Replayed images, in fresh views, are drawn to their
logits by the mean squared error; DER++ adds the cross-entropy of a second draw. DER is `beta: 0`.

As in Mammoth, stream and replayed images go through the network separately, so that batch
normalisation does not mix them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import ClassifierMethod
from methods.parts.buffers import Buffer, reservoir
from methods.parts.requirements import require_two_images


@dataclass(frozen=True, slots=True)
class Config:
    alpha: float = 0.2  # of the logits; Mammoth's best of DER++ for 500 images of CIFAR-10
    beta: float = 0.5  # of the labels, 0 for DER; likewise

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class DarkExperienceReplay(ClassifierMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_two_images(planned, planned.training.buffer_size)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        rng = ctx.random("buffer")
        self.buffer = Buffer(ctx.training.buffer_size, reservoir, rng, ctx.device)
        self._logits: Tensor | None = None  # of the batch that is being learned

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.net(self.views(batch.x))
        self._logits = logits.detach()
        terms = {"stream": F.cross_entropy(logits, batch.labels())}
        alpha, beta = self.config.alpha, self.config.beta
        if len(self.buffer) and alpha:
            old, found = self._replayed()
            terms["logits"] = alpha * F.mse_loss(found, old["logits"])
        if len(self.buffer) and beta:
            old, found = self._replayed()
            terms["labels"] = beta * F.cross_entropy(found, old["y"])
        return terms

    def _replayed(self) -> tuple[dict[str, Tensor], Tensor]:
        """Rows of the memory, and their logits (B, C) now."""
        old = self.buffer.sample(self.ctx.training.replay_batch, self.ctx.random("replay"))
        return old, self.net(self.views(old["x"]))

    def remember(self, batch: Batch) -> None:
        assert self._logits is not None
        self.buffer.add(x=batch.x, y=batch.labels(), logits=self._logits)
        self._logits = None

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "buffer": self.buffer}


build = DarkExperienceReplay

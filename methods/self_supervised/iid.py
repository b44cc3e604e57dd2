"""I.i.d. training: the objective on shuffled images of all tasks; the upper reference.

The reference of CLA (Cignoni et al., CoLLAs 2025) and CLIMB: no stream order, no memory, batches as
large as stream and replay together, and as many optimizer steps as the other methods make. The
stream of the trial is the repeatedly shuffled training images of all tasks, cut into as many equal
parts as there are tasks, so that it has a row of A after each part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.base import Batch, Context, Signal
from methods.learners import SelfSupervisedMethod


@dataclass(frozen=True, slots=True)
class Config:
    pass


class IID(SelfSupervisedMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.IID})

    def __init__(self, config: Config, ctx: Context) -> None:
        del config
        super().__init__(ctx)
        self._pieces: Iterator[Tensor] = iter(())

    def before_passes(self, batch: Batch) -> None:
        self._pieces = iter(batch.x.chunk(self.ctx.training.passes))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        del batch  # each pass has images of its own
        return {"ssl": self.embeddings(self.views(next(self._pieces))).loss}


build = IID

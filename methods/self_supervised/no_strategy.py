"""No strategy: the objective on the stream batch alone; the lower bound of online SSL.

The baseline of CLA (Cignoni et al., CoLLAs 2025) and CLIMB's comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.base import Batch, Context
from methods.learners import SelfSupervisedMethod


@dataclass(frozen=True, slots=True)
class Config:
    pass


class NoStrategy(SelfSupervisedMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        del config
        super().__init__(ctx)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"ssl": self.embeddings(self.views(batch.x)).loss}


build = NoStrategy

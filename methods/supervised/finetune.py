"""Finetune: keep training on the current batch and nothing else; the lower bound.

Cross-entropy over the outputs of all classes, future ones included, as in Mammoth's `sgd`
(Buzzega et al., 2020, arXiv:2004.07211).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context
from methods.learners import ClassifierMethod


@dataclass(frozen=True, slots=True)
class Config:
    label_smoothing: float = 0.0


class Finetune(ClassifierMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.net(self.views(batch.x))
        smoothing = self.config.label_smoothing
        return {"stream": F.cross_entropy(logits, batch.labels(), label_smoothing=smoothing)}


build = Finetune

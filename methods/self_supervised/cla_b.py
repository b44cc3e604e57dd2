"""CLA-b: stream images align with a moving average of the network; no memory of images.

Continual Latent Alignment (Cignoni et al., CoLLAs 2025, eq. 2), for low budgets: the alignment
head turns the projection of each view into what the averaged network makes of the same view.
The average follows after every optimizer step, three times a mini-batch, as in the released code;
the paper's pseudocode updates it before the targets are computed, which differs in the first step
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from methods.base import Batch, Context, Planned, Stateful
from methods.learners import SelfSupervisedMethod
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment; CLA, Tables 8 and 9
    tau: float = 0.999  # momentum of the average; CLA, released code
    ema_bn: Literal["batch", "copy"] = "batch"  # released code; copy: running statistics
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # released code


class CLAb(SelfSupervisedMethod):
    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_alignable(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.teacher = Teacher(self.backbone, self.objective, config.ema_bn)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        self.train_also(self.alignment)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        views = self.views(batch.x)
        found = self.embeddings(views)
        alignment = self.alignment(found.projections, self.teacher(views))
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def after_step(self) -> None:
        super().after_step()
        self.teacher.follow(self.backbone, self.objective, self.config.tau)

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "alignment": self.alignment, "teacher": self.teacher}


build = CLAb

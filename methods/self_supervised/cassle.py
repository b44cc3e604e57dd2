"""CaSSLe: stream images align with the network as it was when the task began; needs boundaries.

Fini et al., 2022, arXiv:2112.04215, in the online setting of CLA (Cignoni et al., CoLLAs 2025).
`align_criterion` ssl is the original's distillation by the objective itself, which CLA's paper
describes; cosine, the default, is what CLA's and CLIMB's released code uses. Deviations from that
code, each undone by its setting: nothing is aligned in the first task, whose frozen network would
be a random one (`skip_first_task: false`), and the frozen network normalises by its running
statistics (`frozen_bn: batch`: by its own batch). The head is not reset between tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import SelfSupervisedMethod
from methods.parts.alignment import Alignment, require_alignable
from methods.parts.teachers import Snapshot


@dataclass(frozen=True, slots=True)
class Config:
    omega: float = 1.0  # weight of the alignment; CaSSLe, released code (lambda)
    align_criterion: Literal["cosine", "mse", "ssl"] = "cosine"  # CLA's released code
    skip_first_task: bool = True  # CaSSLe; false: CLA's released code
    frozen_bn: Literal["frozen", "batch"] = "frozen"  # CaSSLe; batch: CLA's released code


class CaSSLe(SelfSupervisedMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.BOUNDARIES})

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_alignable(planned.objective)

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.before = Snapshot(self.backbone, self.objective, config.frozen_bn)
        self.alignment = Alignment(ctx, self.objective, config.align_criterion)
        self.train_also(self.alignment)

    def begin_task(self, task: TaskView) -> None:
        if task.position or not self.config.skip_first_task:
            self.before.take()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        views = self.views(batch.x)
        found = self.embeddings(views)
        if self.before.teacher is None:
            return {"ssl": found.loss}
        alignment = self.alignment(found.projections, self.before.teacher(views))
        return {"ssl": found.loss, "alignment": self.config.omega * alignment}

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "alignment": self.alignment, "before": self.before}


build = CaSSLe

"""GEM (Lopez-Paz and Ranzato, 2017, arXiv:1706.08840): no step against a past task's gradient.

Where the gradient g of the stream's cross-entropy has a negative product with the gradient of any
past task, taken over all images kept of it, it is replaced by the closest one that has none; with a
`margin`, by one that also leans to the past tasks.

Deviations: only the products of the gradients leave the device, not the gradients as in the
released code and in Mammoth (Buzzega et al., 2020, arXiv:2004.07211). As in Mammoth, and unlike the
released code, the cross-entropy is over the outputs of all classes, and the memory is shared
equally by the classes seen so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Planned, Signal, Stateful, TaskView
from methods.learners import ClassifierMethod
from methods.parts.balanced_memory import BalancedMemory
from methods.parts.dual_program import solve_dual
from methods.parts.exemplars import random_of_each
from methods.parts.flat_gradients import flat_gradient, set_gradient
from methods.parts.requirements import require_own_classes, require_room, require_two_images
from methods.parts.transfers import sent


@dataclass(frozen=True, slots=True)
class Config:
    # The least weight that every past gradient gets as soon as one of them is opposed.
    margin: float = 0.5  # Mammoth; the paper's gamma
    ridge: float = 1e-3  # released code and Mammoth

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"margin must not be negative, got {self.margin}")
        if self.ridge <= 0:
            raise ValueError(f"ridge must be positive, got {self.ridge}")


@dataclass(frozen=True, slots=True)
class PastTasks:
    """What is worked with during one task; derived from the memory.

    Attributes:
        rows: of the memory, for each past task.
        gradients: (k + 1, P), a row for each of the k past tasks, then that of the stream.
    """

    rows: list[Tensor]
    gradients: Tensor


class GEM(ClassifierMethod):
    needs: ClassVar[frozenset[Signal]] = frozenset(
        {Signal.LABELS, Signal.BOUNDARIES, Signal.TASK_DATA}
    )

    @classmethod
    def check(cls, config: Config, planned: Planned) -> None:
        del config
        require_own_classes(planned)
        require_room(planned, planned.num_classes, "classes")
        share = planned.training.buffer_size // planned.num_classes
        require_two_images(planned, share * min(planned.task_classes))

    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.exemplars = BalancedMemory(ctx.training.buffer_size, ctx.device)
        self._past: PastTasks | None = None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if len(self.exemplars):
            self._measure_past_gradients()
        return {"stream": F.cross_entropy(self.net(self.views(batch.x)), batch.labels())}

    def adjust_gradients(self) -> None:
        if self._past is None:
            return
        parameters, gradients = [*self.net.parameters()], self._past.gradients
        gradients[-1] = flat_gradient(parameters)
        # The one transfer of a step: the program is solved on the host.
        products = (gradients[:-1] @ gradients.T).cpu().double()
        if not (products.isfinite().all() and (products[:, -1] < 0).any()):
            return
        weights = solve_dual(
            products[:, :-1].numpy(),
            products[:, -1].numpy(),
            margin=self.config.margin,
            ridge=self.config.ridge,
        )
        v = sent(torch.from_numpy(weights).float(), gradients.device)
        set_gradient(parameters, gradients[-1] + v @ gradients[:-1])

    def end_task(self, task: TaskView) -> None:
        data, share = task.data, self.exemplars.capacity // task.classes.stop
        rows = random_of_each(data.labels(), share, self.ctx.random("exemplars"))
        x, y = data.x[rows], data.labels()[rows]
        new = {"x": x, "y": y, "task": torch.full_like(y, task.position)}
        self.exemplars.renew(new, by="y", keep=share)
        self._past = None

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "exemplars": self.exemplars}

    def rebuild(self, state: Mapping[str, Any]) -> None:
        del state
        self._past = None

    def _measure_past_gradients(self) -> None:
        """Write the gradient of every past task's loss at the present weights."""
        past, held = self._past_tasks(), self.exemplars.everything()
        parameters = [*self.net.parameters()]
        for row, of_task in enumerate(past.rows):
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.net(self.views(held["x"][of_task]))
            F.cross_entropy(logits, held["y"][of_task]).backward()
            past.gradients[row] = flat_gradient(parameters)

    def _past_tasks(self) -> PastTasks:
        """Made once a task, or once more after a checkpoint."""
        if self._past is None:
            task = self.exemplars.everything()["task"]
            rows = [(task == position).nonzero()[:, 0] for position in task.unique().tolist()]
            size = sum(parameter.numel() for parameter in self.net.parameters())
            gradients = torch.empty(len(rows) + 1, size, device=self.ctx.device)
            self._past = PastTasks(rows, gradients)
        return self._past


build = GEM

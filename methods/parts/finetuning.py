"""Training a part of a network on a memory, after the stream of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from methods.base import Losses
from methods.learners import total


@dataclass(frozen=True, slots=True)
class Finetuning:
    """SGD on shuffled rows; after `decay_after` epochs or steps a tenth of the rate."""

    epochs: int
    batch_size: int
    lr: float
    decay_by: Literal["epoch", "step"]
    decay_after: int
    momentum: float = 0.0
    weight_decay: float = 0.0

    def run(
        self,
        module: nn.Module,
        loss: Callable[[Tensor], dict[str, Tensor]],
        rows: int,
        rng: torch.Generator,
    ) -> Iterator[Losses]:
        """Train a module, yielding the losses of every step.

        Args:
            module: what is trained; its gradients are overwritten.
            loss: named terms, which are added, for row numbers of the memory, int64 on the CPU.
            rows: of the memory.
            rng: of the CPU; shuffles them.
        """
        optimizer = torch.optim.SGD(
            module.parameters(), self.lr, self.momentum, weight_decay=self.weight_decay
        )
        schedule = MultiStepLR(optimizer, [self.decay_after], gamma=0.1)
        for _ in range(self.epochs):
            for some in torch.randperm(rows, generator=rng).split(self.batch_size):
                terms = loss(some)
                optimizer.zero_grad(set_to_none=True)
                total(terms).backward()
                optimizer.step()
                yield {name: term.detach() for name, term in terms.items()}
                if self.decay_by == "step":
                    schedule.step()
            if self.decay_by == "epoch":
                schedule.step()

"""Finetune: keep training on the current batch and nothing else; the lower bound.

Cross-entropy over the outputs of all classes, future ones included, as in Mammoth's `sgd`
(Buzzega et al., 2020, arXiv:2004.07211). `outputs: seen` leaves out the classes to come, as a head
does that grows with the tasks. Without a boundary those are the classes above the largest label so
far, which in the first batches of a task may still be too few; weight decay makes the weights of
classes to come smaller. PyCIL's `finetune` (github.com/G-U-N/PyCIL) compares the task's own
classes alone after the first task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.base import Batch, Context, Stateful
from methods.learners import ClassifierMethod


@dataclass(frozen=True, slots=True)
class Config:
    label_smoothing: float = 0.0
    outputs: Literal["all", "seen"] = "all"

    def __post_init__(self) -> None:
        if self.outputs == "seen" and self.label_smoothing:
            raise ValueError(
                "label_smoothing is spread over the outputs of all classes: with outputs seen it "
                f"must be 0, got {self.label_smoothing}"
            )


@final
class LargestLabel:
    """The largest label so far, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._label = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, labels: Tensor) -> None:
        """Labels (B,) of a batch."""
        self._label = torch.maximum(self._label, labels.max())

    def up_to_it(self, logits: Tensor) -> Tensor:
        """Logits (B, C) that are minus infinity for the classes above it."""
        above = torch.arange(logits.shape[1], device=logits.device) > self._label
        return logits.masked_fill(above, float("-inf"))

    def state_dict(self) -> dict[str, Any]:
        return {"label": int(self._label)}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._label = torch.full_like(self._label, state_dict["label"])


class Finetune(ClassifierMethod):
    def __init__(self, config: Config, ctx: Context) -> None:
        super().__init__(ctx)
        self.config = config
        self.largest = LargestLabel(ctx.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self.net(self.views(batch.x)), batch.labels()
        if self.config.outputs == "seen":
            self.largest.note(labels)
            logits = self.largest.up_to_it(logits)
        smoothing = self.config.label_smoothing
        return {"stream": F.cross_entropy(logits, labels, label_smoothing=smoothing)}

    def parts(self) -> dict[str, Stateful]:
        return {**super().parts(), "largest": self.largest}


build = Finetune

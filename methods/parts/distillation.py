"""Keeping the outputs of past classes where an earlier network has them: losses and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F


def sharpened_distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between two softmaxes at a temperature; a scalar, the mean over images.

    Probabilities raised to the power 1 / T and normalised again are the softmax of the logits
    divided by T; computed in that way there is no logarithm of 0.

    Args:
        logits: of the past classes alone, (B, past), at least one.
        teacher_logits: the targets, likewise, without gradient.
        temperature: T; above 1 the small probabilities count more.
    """
    targets = F.softmax(teacher_logits / temperature, dim=1)
    return -(targets * F.log_softmax(logits / temperature, dim=1)).sum(1).mean()


def sigmoid_distillation(
    logits: Tensor, y: Tensor, teacher_logits: Tensor | None, past: int
) -> Tensor:
    """Binary cross-entropy of every output; a scalar, the mean over images and outputs.

    The targets of the first `past` outputs are the teacher's sigmoids, those of the others are 1
    at the label and 0 elsewhere; without a teacher all are of the second sort.

    Args:
        logits: of the classes seen so far, (B, seen).
        y: labels (B,), below seen.
        teacher_logits: (B, past or more), without gradient; None while there is no teacher.
        past: outputs that the teacher has learned; with 0 there is no distillation.
    """
    targets = F.one_hot(y, logits.shape[1]).to(logits.dtype)
    if teacher_logits is not None:
        targets[:, :past] = teacher_logits[:, :past].sigmoid()
    return F.binary_cross_entropy_with_logits(logits, targets)


@final
class RecordedLogits:
    """What a network said of the images of a task, found again by their row numbers."""

    kind = "teachers"

    def __init__(self, device: torch.device) -> None:
        self._rows = torch.empty(0, dtype=torch.int64, device=device)
        self._logits = torch.empty(0, 0, device=device)

    def record(self, rows: Tensor, logits: Tensor) -> None:
        """Hold these and nothing else.

        Args:
            rows: row numbers, int64 (N,), all different.
            logits: (N, C), in the same order.
        """
        self._rows, order = rows.sort()
        self._logits = logits[order]

    def __call__(self, rows: Tensor) -> Tensor:
        """The logits (B, C) of rows (B,) that were recorded."""
        return self._logits[torch.searchsorted(self._rows, rows)]

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._logits.nbytes

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows, "logits": self._logits}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._rows = state_dict["rows"].to(self._rows.device)
        self._logits = state_dict["logits"].to(self._logits.device)

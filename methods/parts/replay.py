"""Replay for online SSL: images of the memory come before those of the stream."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Training
from methods.parts.buffers import Buffer


def with_replay(
    buffer: Buffer, x: Tensor, size: int, rng: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Images of the buffer, then those of `x`; the replayed rows (`size`,).

    Nothing is replayed, and there are no rows, until the buffer holds more than `size` images
    (CLA, CoLLAs 2025, released code).
    """
    if len(buffer) <= size:
        return x, None
    rows = buffer.draw(size, rng)
    return torch.cat([buffer.take(rows)["x"], x]), rows


def require_replay(training: Training, size: int | None = None) -> None:
    """Refuse a buffer that never holds more than the images replayed in a step.

    Raises:
        ValueError: naming both settings.
    """
    name, size = ("replay_batch", training.replay_batch) if size is None else ("batch_size", size)
    if training.buffer_size <= size:
        raise ValueError(
            f"buffer_size must be above {name}, or nothing is ever replayed: "
            f"{training.buffer_size} and {size}"
        )

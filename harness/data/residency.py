"""Where a trial's images lie: on its device if they fit there, else in the CPU's memory.

Either way the numbers of a trial are the same. What does not fit, or would take long to move before
the first step, stays where it is, usually mapped from a file. Its batches are read in the order
that the trial's generator drew, a few ahead of the step by a thread of their own, into pinned
memory, from which the device copies them while it computes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from harness.data.base import Dataset, Split

AHEAD: Final = 3
"""Batches that are read before they are asked for."""

LARGE: Final = 1 << 30
"""Bytes from which images on the CPU are read ahead as well: they may still be on the disk."""


def placed(dataset: Dataset, device: torch.device, budget: int) -> Dataset:
    """The data set with its labels on the device, and its images where there is room.

    Args:
        dataset: On the CPU.
        device: Of the trial.
        budget: Bytes that images may take on it; training images come first.
    """
    if device.type == "cpu":
        return dataset
    train, left = _placed(dataset.train, device, budget)
    test, _ = _placed(dataset.test, device, left)
    return replace(dataset, train=train, test=test)


def _placed(split: Split, device: torch.device, budget: int) -> tuple[Split, int]:
    """The split, and what is left of the budget."""
    labelled = replace(split, y=split.y.to(device))
    size = len(split) * math.prod(split.x.shape[1:])
    if size > budget:
        return labelled, budget
    x = split.x if split.place is None else split.x[split.place]
    return replace(labelled, x=x.to(device), place=None), budget - size


def in_turn(split: Split, order: Tensor, stops: Sequence[int]) -> Generator[tuple[Tensor, Tensor]]:
    """Batches of images, one after the other.

    Args:
        split: Whose images they are.
        order: Rows of the split, int64 (N,) on the CPU.
        stops: Where a batch ends and the next begins, counted in `order`.

    Yields:
        The rows and the images (B, C, H, W) of each batch, on the trial's device.
    """
    device = split.y.device
    on_device = order.to(device).tensor_split(list(stops))
    if split.x.device == device and (device.type != "cpu" or split.x.nbytes < LARGE):
        yield from ((rows, split.images(rows)) for rows in on_device)
        return
    yield from zip(on_device, _read_ahead(split, order.tensor_split(list(stops))), strict=True)


def _read_ahead(split: Split, batches: Sequence[Tensor]) -> Generator[Tensor]:
    # A thread has its own number of threads for what it computes, all cores unless it is told.
    reader = ThreadPoolExecutor(1, "images", torch.set_num_threads, (torch.get_num_threads(),))
    waiting: deque[Future[Tensor]] = deque()
    try:
        for rows in batches:
            waiting.append(reader.submit(_gathered, split, rows))
            if len(waiting) > AHEAD:
                yield _sent(waiting.popleft(), split)
        while waiting:
            yield _sent(waiting.popleft(), split)
    finally:
        reader.shutdown(cancel_futures=True)


def _gathered(split: Split, rows: Tensor) -> Tensor:
    """The images of these rows, on the CPU."""
    pinned = split.y.device.type == "cuda"
    into = torch.empty((len(rows), *split.x.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    place = rows if split.place is None else split.place[rows]
    return torch.index_select(split.x, 0, place, out=into)


def _sent(images: Future[Tensor], split: Split) -> Tensor:
    # PyTorch keeps pinned memory from being used anew until the copy out of it is done.
    return images.result().to(split.y.device, non_blocking=True)

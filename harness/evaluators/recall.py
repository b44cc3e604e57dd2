"""How well a method recalls the images that it keeps in a compressed form, and how small they are.

For each task: bits per pixel of what is kept, mean squared error and peak signal-to-noise ratio
against the original images, and the share of recalled images that the current classifier gets
right, the classes seen competing (BrainCL, arXiv:2504.14727), over the images that a method keeps
first: BrainCL's most typical ones, unless `per_task` takes in all. Methods that recall nothing
give nothing.

Details `recalled`, a row an image of the first few of each task: `image`, its row number in the
training data; `label`, `task`; `original` and `recalled` (C * H * W), uint8; `bits`, `channels`,
`height`, `width`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log10, prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.measure import EVAL_BATCH, Checkpoint, Details, Evaluator, Measurement, as_numpy
from methods.base import Recalled

Columns = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Config:
    per_task: int = 100  # images of each task that are measured, the first that it keeps
    shown: int = 4  # of them, how many are kept for figures

    def __post_init__(self) -> None:
        if self.per_task < 1 or self.shown < 0:
            raise ValueError(
                f"per_task must be at least 1 and shown at least 0, got {self.per_task} and "
                f"{self.shown}"
            )


class Recall(Evaluator):
    config: Config

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        found = checkpoint.method.recalled(self.config.per_task)
        for part in found:
            yield from _measured(part, checkpoint)
        if found and self.config.shown:
            shown = [_shown(part, self.config.shown, checkpoint) for part in found]
            yield Details(
                "recalled",
                {name: np.concatenate([one[name] for one in shown]) for name in shown[0]},
            )


def _measured(part: Recalled, checkpoint: Checkpoint) -> Iterator[Measurement]:
    train, n = checkpoint.scenario.dataset.train, len(part.rows)
    rows = part.rows.to(train.y.device)
    pixels = prod(part.x.shape[2:])
    difference = (part.x.to(train.y.device).float() - train.images(rows).float()) / 255
    error = difference.square().double().mean().item()
    yield Measurement(part.task, "bits_per_pixel", part.bits.mean().item() / pixels, n)
    yield Measurement(part.task, "recall_error", error, n)
    if error:
        yield Measurement(part.task, "recall_psnr", -10 * log10(error), n)
    if checkpoint.method.predicts:
        hits = _guesses(part.x, checkpoint) == train.y[rows]
        yield Measurement(part.task, "recall_accuracy", hits.double().mean().item(), n)


def _guesses(x: Tensor, checkpoint: Checkpoint) -> Tensor:
    """The best of the classes seen for each image, int64 (N,)."""
    seen = checkpoint.scenario.seen_classes(checkpoint.after_task)
    scores = torch.cat([checkpoint.method.predict(part) for part in x.split(EVAL_BATCH)])
    return scores[:, : seen.stop].argmax(1)


def _shown(
    part: Recalled, count: int, checkpoint: Checkpoint
) -> dict[str, npt.NDArray[np.generic]]:
    train = checkpoint.scenario.dataset.train
    rows, x = part.rows[:count].to(train.y.device), part.x[:count]
    channels, height, width = x.shape[1:]
    numbers = {"task": part.task, "channels": channels, "height": height, "width": width}
    return {
        "image": as_numpy(rows),
        "label": as_numpy(train.y[rows]),
        "original": as_numpy(train.images(rows).flatten(1)),
        "recalled": as_numpy(x.flatten(1)),
        "bits": as_numpy(part.bits[:count]),
        **{name: np.full(len(rows), number) for name, number in numbers.items()},
    }


build = Recall

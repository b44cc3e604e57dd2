"""Which classes are taken for which: the confusion matrix, and how much the last task attracts.

Class-incremental: the best of the classes seen counts, on the measured images of the tasks seen.

- `bias_to_last`: share of the images of earlier tasks' classes that are taken for a class of the
  last task; not there while there is no earlier class;
- `predicted_share` on each task seen: share of all images that are taken for a class of this task.
  Tasks of equal size should get equal shares. Where the tasks are domains, all have all classes and
  each share is 1.

Details `confusion`, a row a pair of classes seen, also those that never occur: `label`, the true
class, and `predicted`, both as places in the class order; `count`, their images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from harness.measure import Checkpoint, Details, Evaluator, Measurement, as_numpy
from harness.schema import ALL_TASKS


@dataclass(frozen=True, slots=True)
class Config:
    pass


class Confusion(Evaluator):
    needs_predictions: ClassVar[bool] = True

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        counts = confusion(checkpoint)
        tasks, images = checkpoint.scenario.tasks[: checkpoint.after_task + 1], int(counts.sum())
        if not images:
            return
        new = tasks[-1].classes.start
        earlier = counts[:new]
        if earlier.any():
            n = int(earlier.sum())
            yield Measurement(ALL_TASKS, "bias_to_last", float(earlier[:, new:].sum() / n), n)
        for task in tasks:
            taken = counts[:, task.classes.start : task.classes.stop].sum()
            yield Measurement(task.position, "predicted_share", float(taken / images), images)
        label, predicted = (places.ravel() for places in np.indices(counts.shape, dtype=np.int32))
        columns = {"label": label, "predicted": predicted, "count": counts.ravel()}
        yield Details("confusion", columns)


def confusion(checkpoint: Checkpoint) -> npt.NDArray[np.int64]:
    """Images of each class seen (a row) that are taken for each of them (a column)."""
    split = checkpoint.split
    known = checkpoint.task(split) <= checkpoint.after_task
    classes = checkpoint.scenario.seen_classes(checkpoint.after_task).stop
    guesses = checkpoint.logits[known, :classes].argmax(1)
    pairs = checkpoint.labels(split)[known] * classes + guesses
    return as_numpy(torch.bincount(pairs, minlength=classes**2)).reshape(classes, classes)


build = Confusion

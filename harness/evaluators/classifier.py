"""Top-1 accuracy of the method's own classifier, class-incremental and task-incremental.

Both come from one pass over the measured images (van de Ven and Tolias, 2019, arXiv:1904.07734):
class-IL takes the best of all classes seen so far, task-IL the best of the image's own task. Where
the tasks are domains, which share their classes, the two agree from the first task on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.measure import (
    Checkpoint,
    Evaluator,
    Measurement,
    accuracy_by_task,
    class_masks,
)


@dataclass(frozen=True, slots=True)
class Config:
    pass


class Classifier(Evaluator):
    needs_predictions: ClassVar[bool] = True
    before_training: ClassVar[bool] = True
    by_task: ClassVar[bool] = True

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        """`accuracy` of the tasks seen, `accuracy_task_il` of every task, seen or not."""
        return accuracies(checkpoint.logits, checkpoint)


def accuracies(scores: Tensor, checkpoint: Checkpoint) -> Iterator[Measurement]:
    """Both accuracies of the measured images by their class scores (N, C); see `Classifier`."""
    masks = class_masks(checkpoint)
    for task, (value, n) in enumerate(_by_task(scores, masks.own, checkpoint)):
        yield Measurement(task, "accuracy_task_il", value, n)
    class_il = _by_task(scores, masks.seen, checkpoint)
    for task in range(checkpoint.after_task + 1):
        value, n = class_il[task]
        yield Measurement(task, "accuracy", value, n)


def _by_task(scores: Tensor, allowed: Tensor, checkpoint: Checkpoint) -> list[tuple[float, int]]:
    """Accuracy of every task when only the `allowed` outputs (N, C) compete."""
    guess = scores.masked_fill(~allowed, float("-inf")).argmax(1)
    labels, task = checkpoint.labels(checkpoint.split), checkpoint.task(checkpoint.split)
    return accuracy_by_task(guess == labels, task, len(checkpoint.scenario.tasks))


build = Classifier

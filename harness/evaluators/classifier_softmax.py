"""Top-1 accuracy of the softmax head, for methods that classify by something else.

iCaRL (Rebuffi et al., 2017, arXiv:1611.07725) takes the nearest mean of exemplars and trains a head
beside it; which of the two a number belongs to is easily confused. `classifier` measures what the
method predicts, this its `class_logits`. The same for all other methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from harness.evaluators.classifier import accuracies
from harness.measure import Checkpoint, Evaluator, Measurement


@dataclass(frozen=True, slots=True)
class Config:
    pass


class ClassifierSoftmax(Evaluator):
    needs_predictions: ClassVar[bool] = True
    before_training: ClassVar[bool] = True
    by_task: ClassVar[bool] = True

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        """`accuracy` of the tasks seen, `accuracy_task_il` of every task, as `classifier`."""
        return accuracies(checkpoint.class_logits, checkpoint)


build = ClassifierSoftmax

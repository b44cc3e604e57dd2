"""Accuracy of the classes with many, some and few training images, for long-tailed data.

The groups are those of OLTR (Liu et al., CVPR 2019, arXiv:1904.05160; `shot_acc` in utils.py of
github.com/zhmiao/OpenLongTailRecognition-OLTR): by the training images of a class, `many` has at
least 100, `few` at most 20, and `medium` what lies between.

`accuracy` under the conditions `many`, `medium`, `few` and `overall`: class-incremental, the best
of the classes seen counts, on the measured images of the classes seen. A group without such images
is left out. It is the share of right images; OLTR takes the mean over classes, which is the same
where all have equally many test images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.evaluators.fairness import class_counts
from harness.measure import Checkpoint, Evaluator, Measurement, as_numpy
from harness.schema import ALL_TASKS


@dataclass(frozen=True, slots=True)
class Config:
    many: int = 100  # OLTR, utils.py: so many training images or more
    few: int = 20  # likewise: so many or fewer

    def __post_init__(self) -> None:
        if self.few < 0:
            raise ValueError(f"few must not be negative, got {self.few}")
        if self.few >= self.many:
            raise ValueError(f"few must be below many, got few {self.few} and many {self.many}")


class Shots(Evaluator):
    needs_predictions: ClassVar[bool] = True
    config: Config

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        right, total = class_counts(checkpoint).sum(1)
        trained = as_numpy(checkpoint.train_counts)[: len(total)]
        many, few = trained >= self.config.many, trained <= self.config.few
        groups = {
            "many": many,
            "medium": ~many & ~few,
            "few": few,
            "overall": np.ones_like(many),
        }
        for name, group in groups.items():
            n = int(total[group].sum())
            if n:
                value = float(right[group].sum() / n)
                yield Measurement(ALL_TASKS, "accuracy", value, n, condition=name)


build = Shots

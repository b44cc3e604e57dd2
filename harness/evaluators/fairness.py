"""How evenly the classes are learned: the spread of their accuracies, among all and within tasks.

The accuracy of a class is class-incremental: the best of the classes seen counts, on the measured
images of the tasks seen. The summary numbers are common ones, of no particular paper:

- `class_std`: standard deviation (over n, not n - 1) of the accuracies of all classes seen;
- `class_min` and `class_range`: the smallest, and the largest minus the smallest;
- `worst_tenth`: mean of the worst tenth of the classes, rounded down, but of one at least;
- `gini`: Gini coefficient, the mean absolute difference of two classes over twice the mean; 0 is
  even, also where every accuracy is 0;
- `task_range` and `task_std` on each task seen: the same among the classes of this task alone.

Details `class_accuracy`, a row a class of a task: `label`, its place in the class order; `name`,
`task`, `accuracy`, and `n`, its images there. Where the tasks are domains, each has all classes.
A class or task without measured images is left out everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from harness.measure import Checkpoint, Details, Evaluator, Measurement, hits_and_totals
from harness.schema import ALL_TASKS

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Config:
    pass


class Fairness(Evaluator):
    needs_predictions: ClassVar[bool] = True

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        right, total = class_counts(checkpoint)
        if not total.any():
            return
        accuracies = _accuracies(right.sum(0), total.sum(0))
        for metric, value in summary(accuracies):
            yield Measurement(ALL_TASKS, metric, value, int(total.sum()))
        for task in total.any(1).nonzero()[0].tolist():
            own, n = _accuracies(right[task], total[task]), int(total[task].sum())
            yield Measurement(task, "task_range", float(np.ptp(own)), n)
            yield Measurement(task, "task_std", float(own.std()), n)
        task, label = total.nonzero()
        names = np.array(checkpoint.scenario.dataset.class_names)
        n = total[task, label]
        columns = {"label": label, "name": names[label], "task": task}
        yield Details("class_accuracy", {**columns, "accuracy": right[task, label] / n, "n": n})


def class_counts(checkpoint: Checkpoint) -> Counts:
    """Right answers and images of each class seen in each task seen, (2, tasks, classes)."""
    split, scenario = checkpoint.split, checkpoint.scenario
    tasks, classes = len(scenario.tasks), scenario.dataset.num_classes
    seen = scenario.seen_classes(checkpoint.after_task)
    labels = checkpoint.labels(split)
    hits = checkpoint.logits[:, : seen.stop].argmax(1) == labels
    places = checkpoint.task(split) * classes + labels
    counts = hits_and_totals(places, hits, tasks * classes).reshape(2, tasks, classes)
    return counts[:, : checkpoint.after_task + 1, : seen.stop]


def _accuracies(right: Counts, total: Counts) -> Values:
    """Those of the classes with images."""
    there = total > 0
    return right[there] / total[there]


def summary(accuracies: Values) -> Iterator[tuple[str, float]]:
    """The numbers over all classes, from the accuracy of each, (N,)."""
    ascending = np.sort(accuracies)
    yield "class_std", float(accuracies.std())
    yield "class_min", float(ascending[0])
    yield "class_range", float(ascending[-1] - ascending[0])
    yield "worst_tenth", float(ascending[: max(1, len(ascending) // 10)].mean())
    yield "gini", gini(accuracies)


def gini(values: Values) -> float:
    """Gini coefficient of numbers (N,) that are not negative, 0 if all are 0."""
    total = values.sum()
    if not total:
        return 0.0
    # In ascending order each value is the larger one of a pair as often as there are values below.
    rank = np.arange(len(values))
    differences = (2 * rank - len(values) + 1) @ np.sort(values)
    return float(differences / (len(values) * total))


build = Fairness

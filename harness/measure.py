"""What an evaluator sees of a trained method, and what it gives back."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.data.base import Split
from harness.data.residency import in_turn
from harness.data.scenarios import Scenario
from harness.seeds import generator
from methods.base import Method

Part = Literal["train", "validation", "test"]

EVAL_BATCH = 512
"""Images a forward pass of evaluation; fixed, because it can change the last bits of a feature."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number: a `metric` on task `on_task` (-1: all tasks together) over `n` images."""

    on_task: int
    metric: str
    value: float
    n: int
    condition: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """What one number cannot say, as columns of equal length, for figures and later analyses.

    `columns` are arrays (N,), or (N, ...) for a list of numbers a row. A store keeps them in
    `records/<trial_id>/<kind>/`, one file a task (`harness.records`).
    """

    kind: str
    columns: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the trial has spent so far; seconds of wall time, bytes at the peak.

    `epoch_seconds` is the mean over the epochs of the last task learned but its first, in which
    caches are still cold; over that one if there is no other; None if there were no epochs.
    """

    train_seconds: float
    eval_seconds: float
    epoch_seconds: float | None
    peak_memory_bytes: int


class Checkpoint:
    """A method after a task, frozen: what is computed from it once is shared by all evaluators.

    Attributes:
        after_task: position of the last task learned, -1 before training.
        split: which images are measured, "test" or "validation".
        cost: says how many seconds and bytes the trial has spent up to the moment of the call.
    """

    def __init__(
        self,
        method: Method,
        scenario: Scenario,
        after_task: int,
        *,
        split: Literal["test", "validation"],
        seed: int,
        cost: Callable[[], Cost],
    ) -> None:
        self.method = method
        self.scenario = scenario
        self.after_task = after_task
        self.split: Literal["test", "validation"] = split
        self.cost = cost
        self._seed = seed
        self._features: dict[Part, Tensor] = {}

    def rng(self, evaluator: str) -> torch.Generator:
        """A fresh generator for one evaluator; no draw from it reaches the method."""
        return generator(self._seed, "probe", evaluator, self.after_task)

    def fixed_rng(self, *purpose: str | int) -> torch.Generator:
        """The same after every task, and for all methods: for variants of the measured images."""
        return generator(self._seed, "fixed probe", *purpose)

    def labels(self, part: Part) -> Tensor:
        """Labels of one part's images, ordered by task; int64 (N,)."""
        return self._data(part).y[self.rows(part)]

    def task(self, part: Part) -> Tensor:
        """The task of each of them; int64 (N,)."""
        sizes = torch.tensor([len(getattr(task, part)) for task in self.scenario.tasks])
        task = torch.arange(len(sizes)).repeat_interleave(sizes)
        return task.to(self._data(part).y.device)

    def batches(self, part: Part) -> Iterator[Tensor]:
        """The images of one part in the same order, uint8 (B, C, H, W) a batch."""
        rows = self._rows(part)
        stops = range(EVAL_BATCH, len(rows), EVAL_BATCH)
        yield from (x for _, x in in_turn(self._data(part), rows, stops))

    def images(self, part: Part, places: Tensor) -> Tensor:
        """Some of them, uint8 (len(places), C, H, W), by their places in that order."""
        return self._data(part).images(self.rows(part)[places])

    @cached_property
    def logits(self) -> Tensor:
        """Scores of the measured images, (N, num_classes), on the method's device."""
        return torch.cat([self.method.predict(x) for x in self.batches(self.split)])

    @cached_property
    def class_logits(self) -> Tensor:
        """Likewise the logits whose softmax is the method's confidence."""
        if type(self.method).class_logits is Method.class_logits:
            return self.logits
        return torch.cat([self.method.class_logits(x) for x in self.batches(self.split)])

    @cached_property
    def train_counts(self) -> Tensor:
        """Training images of each class in all tasks, int64 (num_classes,) on the CPU."""
        rows = torch.cat([task.train for task in self.scenario.tasks])
        labels = self.scenario.dataset.train.y.cpu()[rows]
        return labels.bincount(minlength=self.scenario.dataset.num_classes)

    def features(self, part: Part) -> Tensor:
        """Features of one part's images, (N, D), on the method's device; computed once."""
        if part not in self._features:
            self._features[part] = torch.cat([self.method.embed(x) for x in self.batches(part)])
        return self._features[part]

    def _data(self, part: Part) -> Split:
        return self.scenario.dataset.test if part == "test" else self.scenario.dataset.train

    def rows(self, part: Part) -> Tensor:
        """Row numbers of one part's images in the data set, ordered by task; int64 (N,)."""
        return self._rows(part).to(self._data(part).y.device)

    def _rows(self, part: Part) -> Tensor:
        return torch.cat([getattr(task, part) for task in self.scenario.tasks])


class Evaluator(abc.ABC):
    """Measures a checkpoint; changes neither the method nor anything it draws from.

    One file in `harness/evaluators/` each, with a `Config` dataclass and `build`, the class.
    """

    needs_predictions: ClassVar[bool] = False
    needs_validation: ClassVar[bool] = False
    before_training: ClassVar[bool] = False
    """Whether it also measures the untrained method, as `after_task` -1."""
    by_task: ClassVar[bool] = False
    """Whether it measures the accuracy on each task, which CA and FA are made of."""
    runs_last: ClassVar[bool] = False
    """Whether it reports on what the other evaluators did."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - the evaluator's own Config
        self.config = config

    def prepare(self, scenario: Scenario, data_root: Path) -> None:  # noqa: B027 - optional hook
        """Fetch what it needs besides the trial's data set; called before training.

        Raises:
            DataError: if it is not there.
        """

    @abc.abstractmethod
    def evaluate(self, checkpoint: Checkpoint) -> Iterable[Measurement | Details]: ...


def as_numpy(values: Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the CPU, for a column of `Details`."""
    return values.detach().cpu().numpy()


def hits_and_totals(groups: Tensor, hits: Tensor, count: int) -> npt.NDArray[np.int64]:
    """Right answers and images of each group, (2, count), with one transfer from the device.

    Args:
        groups: a task or class of each image, int64 (N,), from 0 to `count` - 1.
        hits: bool (N,).
        count: of the groups.
    """
    total = torch.bincount(groups, minlength=count)
    right = torch.bincount(groups[hits], minlength=count)
    return as_numpy(torch.stack([right, total]))


@dataclass(frozen=True, slots=True)
class ClassMasks:
    """Which outputs compete for each measured image, bool.

    `own` (N, C): those of its task; `seen` (1, C): of all tasks learned, none before training.
    """

    own: Tensor
    seen: Tensor


def class_masks(checkpoint: Checkpoint) -> ClassMasks:
    """Task-incremental and class-incremental competition among the outputs of a classifier."""
    scenario, task = checkpoint.scenario, checkpoint.task(checkpoint.split)
    labels = torch.arange(scenario.dataset.num_classes)
    of_task = torch.stack([_within(labels, one.classes) for one in scenario.tasks])
    seen = _within(labels, scenario.seen_classes(checkpoint.after_task))
    return ClassMasks(of_task.to(task.device)[task], seen[None].to(task.device))


def _within(labels: Tensor, classes: range) -> Tensor:
    """Which of the labels (C,) are among consecutive classes; bool (C,)."""
    return (labels >= classes.start) & (labels < classes.stop)


def accuracy_by_task(hits: Tensor, task: Tensor, num_tasks: int) -> list[tuple[float, int]]:
    """Share of hits and number of images of every task, with one transfer from the device.

    Args:
        hits: bool (N,).
        task: int64 (N,), each image's task.
        num_tasks: length of the result.
    """
    counts = hits_and_totals(task, hits, num_tasks).tolist()
    return [(r / n if n else float("nan"), n) for r, n in zip(*counts, strict=True)]

"""What an evaluator sees of a trained method, and what it gives back."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

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


@dataclass(frozen=True, slots=True)
class Cost:
    """What the trial has spent so far; seconds of wall time, bytes at the peak."""

    train_seconds: float
    eval_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one part of the data: `x` uint8 (N, C, H, W), `y` and `task` int64 (N,)."""

    x: Tensor
    y: Tensor
    task: Tensor


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

    def examples(self, part: Part) -> Examples:
        """All images of one part, ordered by task; labels are positions in the class order."""
        tasks = self.scenario.tasks
        rows = [getattr(task, part) for task in tasks]
        data = self.scenario.dataset.test if part == "test" else self.scenario.dataset.train
        index = torch.cat(rows).to(data.x.device)
        sizes = torch.tensor([len(r) for r in rows])
        task = torch.arange(len(tasks)).repeat_interleave(sizes)
        return Examples(data.x[index], data.y[index], task.to(data.x.device))

    @cached_property
    def measured(self) -> Examples:
        """The images that accuracies are about."""
        return self.examples(self.split)

    @cached_property
    def logits(self) -> Tensor:
        """Scores of the measured images, (N, num_classes), on the method's device."""
        chunks = self.measured.x.split(EVAL_BATCH)
        return torch.cat([self.method.predict(chunk) for chunk in chunks])

    def features(self, part: Part) -> Tensor:
        """Features of one part in the order of `examples`, (N, D), on the method's device."""
        if part not in self._features:
            chunks = self.examples(part).x.split(EVAL_BATCH)
            self._features[part] = torch.cat([self.method.embed(chunk) for chunk in chunks])
        return self._features[part]


class Evaluator(abc.ABC):
    """Measures a checkpoint; changes neither the method nor anything it draws from.

    One file in `harness/evaluators/` each, with a `Config` dataclass and `build`, the class.
    """

    needs_predictions: ClassVar[bool] = False
    needs_validation: ClassVar[bool] = False
    before_training: ClassVar[bool] = False
    """Whether it also measures the untrained method, as `after_task` -1."""
    runs_last: ClassVar[bool] = False
    """Whether it reports on what the other evaluators did."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - the evaluator's own Config
        self.config = config

    @abc.abstractmethod
    def evaluate(self, checkpoint: Checkpoint) -> Iterable[Measurement]: ...


def accuracy_by_task(hits: Tensor, task: Tensor, num_tasks: int) -> list[tuple[float, int]]:
    """Share of hits and number of images of every task, with one transfer from the device.

    Args:
        hits: bool (N,).
        task: int64 (N,), each image's task.
        num_tasks: length of the result.
    """
    total = torch.bincount(task, minlength=num_tasks)
    right = torch.bincount(task[hits], minlength=num_tasks)
    counts = torch.stack([right, total]).tolist()
    return [(r / n if n else float("nan"), n) for r, n in zip(*counts, strict=True)]

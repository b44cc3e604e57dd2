"""Turn tasks into batches, revealing only what the method declared that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from harness.data.base import Split
from harness.data.residency import in_turn
from harness.data.scenarios import Scenario, Task
from methods.base import Batch, Signal


@dataclass(slots=True)
class Tally:
    """Counts the training images drawn so far."""

    samples: int = 0


def _ignore() -> None:
    """Nobody watches the epochs."""


@final
@dataclass(frozen=True, slots=True)
class TaskBatches:
    """Shuffled batches over `rows` of `split`, `epochs` times; images are uint8 on the device.

    `on_epoch` is called when an epoch begins and when the last one has been learned.
    With `drop_last` an incomplete last batch is left out, unless it is all there is. Without it a
    single last image joins the batch before it: batch normalisation cannot train on one image.
    """

    split: Split
    rows: Tensor
    size: int
    epochs: int
    drop_last: bool
    reveal: frozenset[Signal]
    position: int
    rng: torch.Generator
    tally: Tally
    milestones: tuple[int, ...] = ()
    on_epoch: Callable[[], None] = _ignore

    def __len__(self) -> int:
        return self.epochs * self._per_epoch()

    def _per_epoch(self) -> int:
        full, rest = divmod(len(self.rows), self.size)
        left_out = full and (self.drop_last or rest == 1)
        return full + bool(rest and not left_out)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.epochs):
            self.on_epoch()
            order = self.rows[torch.randperm(len(self.rows), generator=self.rng)]
            count = self._per_epoch()
            last = (count - 1) * self.size
            joined = not self.drop_last and len(order) - last == self.size + 1
            stops = range(self.size, last + 1, self.size)
            for rows, x in in_turn(self.split, order[: last + self.size + joined], stops):
                self.tally.samples += len(rows)
                yield revealed(self.split, rows, x, reveal=self.reveal, position=self.position)
        self.on_epoch()


def revealed(
    split: Split, rows: Tensor, x: Tensor, *, reveal: frozenset[Signal], position: int
) -> Batch:
    """Images of these rows of a split, with what of them may be seen."""
    return Batch(
        x=x,
        y=split.y[rows] if Signal.LABELS in reveal else None,
        index=rows,
        task=position if Signal.TASK_ID in reveal else None,
    )


@final
@dataclass(frozen=True, slots=True)
class RevealedTask:
    """A task as one method may see it; implements `methods.base.TaskView`."""

    scenario: Scenario
    task: Task
    reveal: frozenset[Signal]
    tally: Tally

    @property
    def position(self) -> int:
        self._need("position", Signal.BOUNDARIES, Signal.TASK_ID)
        return self.task.position

    @property
    def classes(self) -> range:
        self._need("classes", Signal.LABELS)
        self._need("classes", Signal.BOUNDARIES, Signal.TASK_ID)
        return self.task.classes

    @property
    def data(self) -> Batch:
        """All training images of the task (of all tasks so far with ALL_DATA), in stored order."""
        train = self.scenario.dataset.train
        rows = self._rows().to(train.y.device)
        labels = train.y[rows] if Signal.LABELS in self.reveal else None
        return Batch(train.images(rows), labels, rows)

    def batches(self, size: int, *, epochs: int, rng: torch.Generator) -> TaskBatches:
        """More batches over the same images, in an order drawn from `rng`."""
        return TaskBatches(
            split=self.scenario.dataset.train,
            rows=self._rows(),
            size=size,
            epochs=epochs,
            drop_last=False,
            reveal=self.reveal,
            position=self.task.position,
            rng=rng,
            tally=self.tally,
        )

    def _rows(self) -> Tensor:
        self._need("data", Signal.TASK_DATA, Signal.ALL_DATA)
        return training_rows(self.scenario, self.task, self.reveal)

    def _need(self, what: str, *signals: Signal) -> None:
        if not self.reveal.intersection(signals):
            names = " or ".join(f"Signal.{signal.name}" for signal in signals)
            raise RuntimeError(f"`task.{what}` is hidden; declare {names} in `needs`")


def training_rows(scenario: Scenario, task: Task, reveal: frozenset[Signal]) -> Tensor:
    """Rows of the training split that the stream of `task` runs over."""
    if Signal.ALL_DATA in reveal:
        return torch.cat([t.train for t in scenario.tasks[: task.position + 1]])
    return task.train

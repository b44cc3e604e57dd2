"""Run one trial: the only training loop in the project.

A trial is made of tasks. After each one the method is measured and its whole state saved, so that
whatever happens costs at most one task, and the numbers come out the same, bit for bit.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import torch

from harness.assembly import build_evaluators, build_method, build_scenario, task_stream
from harness.checkpoint import CheckpointFolder
from harness.config import settings
from harness.data.scenarios import Task
from harness.data.stream import RevealedTask, Tally, TaskBatches
from harness.device import image_budget, peak_memory_bytes, reset_peak_memory, synchronize
from harness.errors import UserError
from harness.measure import Checkpoint, Cost, Evaluator, Measurement
from harness.records import write_details, write_records
from harness.schema import BEFORE_TRAINING, Row
from harness.seeds import Randomness
from harness.spec import ProtocolSettings, Trial
from methods.base import Batches, Losses, Signal
from methods.learners import total

DIVERGENCE_CHECK: Final = 100
"""Steps between two looks at the device's divergence flag; each look waits for the device."""


class DivergedError(RuntimeError):
    """A loss or a weight became infinite or not a number."""


class StopTraining(Exception):  # noqa: N818 - nothing went wrong
    """Raised by who is told of a trial's progress: it ends there, its checkpoints stay."""


Accuracies = tuple[float | None, ...]
"""Mean primary accuracy over the tasks seen, after each task so far; None where not measured."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running trial is: tasks learned, accuracies after them, seconds of work so far."""

    trial_id: str
    num_tasks: int
    accuracies: Accuracies
    seconds: float

    @property
    def tasks_done(self) -> int:
        return len(self.accuracies)

    @property
    def accuracy(self) -> float | None:
        return self.accuracies[-1] if self.accuracies else None


def accuracies(measured: Iterable[Mapping[str, Any]], primary: str, tasks: int) -> Accuracies:
    """The mean accuracies after each of the first `tasks` tasks.

    Args:
        measured: rows of one trial, or what one has measured so far: the same keys.
        primary: the evaluator whose accuracy counts.
        tasks: how many.
    """
    found: list[list[float]] = [[] for _ in range(tasks)]
    for entry in measured:
        if (
            0 <= entry["on_task"] <= entry["after_task"] < tasks
            and entry["metric"] == "accuracy"
            and entry["evaluator"] == primary
            and entry["condition"] is None
        ):
            found[entry["after_task"]].append(entry["value"])
    return tuple(math.fsum(row) / len(row) if row else None for row in found)


@dataclass(slots=True)
class _Position:
    """How far a trial has come; saved with every checkpoint."""

    next_task: int = 0
    tally: Tally = field(default_factory=Tally)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    attempts: int = 1
    started: str = ""
    measured: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@final
class TrialRun:
    """One trial on one device: build it, then `run` it from the start or its last checkpoint.

    Attributes:
        records: the folder for the records of every image that the protocol asks for; None: they
            are not kept.
        about: what made the trial, kept in its checkpoints for who stores it in its place.
    """

    def __init__(self, trial: Trial, data_root: Path, device: torch.device) -> None:
        self.trial = trial
        self.device = device
        self.settings = settings(ProtocolSettings, trial.spec.protocol, where="protocol")
        reset_peak_memory(device)
        budget = image_budget(device, trial.resources)
        self.scenario = build_scenario(trial.spec, data_root, device, budget=budget)
        self.random = Randomness(trial.spec.seed)
        self.method = build_method(trial.spec, self.settings, self.scenario, self.random, device)
        self.evaluators = build_evaluators(self.settings)
        for _, _, evaluator in self.evaluators:
            evaluator.prepare(self.scenario, data_root)
        self.position = _Position()
        self.records: Path | None = None
        self.about: Mapping[str, Any] = {}
        self._epochs: list[float] = []

    def run(
        self, folder: CheckpointFolder, notify: Callable[[Progress], None], *, started: str
    ) -> list[Row]:
        """Train on every task in order; after each one, measure what the protocol asks.

        Args:
            folder: where checkpoints are read from and written to.
            notify: told after every task.
            started: time of this attempt, kept from the first one on.

        Raises:
            DivergedError: if a loss was not finite.
        """
        self.position.started = started
        self._resume(folder)
        if not self.position.next_task:
            self._measure(BEFORE_TRAINING)
        notify(self._progress())
        for task in self.scenario.tasks[self.position.next_task : self.trial.spec.stop_after]:
            self._learn(task)
            self._measure(task.position)
            self.position.next_task = task.position + 1
            folder.save(task.position, self._payload())
            notify(self._progress())
        return rows_of(self.trial, self.position.measured)

    def times(self) -> dict[str, Any]:
        """When it began, how often it was begun, seconds of training and measuring."""
        return times_of(asdict(self.position))

    def _learn(self, task: Task) -> None:
        self.random.start_task(task.position)
        self._epochs = []
        view = RevealedTask(self.scenario, task, self.method.needs, self.position.tally)
        started = time.perf_counter()
        announced = Signal.BOUNDARIES in self.method.needs
        if announced:
            self.method.begin_task(view)
        _watch(self.method.learn_task(view, self._batches(task)), self.device)
        if announced:
            self.method.end_task(view)
        if not self.method.finite():
            raise DivergedError("a weight became infinite or not a number")
        synchronize(self.device)
        self.position.train_seconds += time.perf_counter() - started

    def _batches(self, task: Task) -> Batches:
        stream = task_stream(
            self.scenario,
            task,
            self.settings,
            reveal=self.method.needs,
            seed=self.trial.spec.seed,
            tally=self.position.tally,
        )
        # A shuffle of all tasks has no epochs.
        return replace(stream, on_epoch=self._lap) if isinstance(stream, TaskBatches) else stream

    def _lap(self) -> None:
        synchronize(self.device)
        self._epochs.append(time.perf_counter())

    def _epoch_seconds(self) -> float | None:
        """Mean seconds of the last task's epochs, without the first if there are more."""
        laps = [after - before for before, after in itertools.pairwise(self._epochs)]
        laps = laps[1:] or laps
        return math.fsum(laps) / len(laps) if laps else None

    def _measure(self, after_task: int) -> None:
        if not self.method.measurable:
            return
        started = time.perf_counter()

        def cost() -> Cost:
            seconds = self.position.eval_seconds + time.perf_counter() - started
            return Cost(
                self.position.train_seconds,
                seconds,
                self._epoch_seconds(),
                peak_memory_bytes(self.device),
            )

        checkpoint = Checkpoint(
            self.method,
            self.scenario,
            after_task,
            split=self.settings.split,
            seed=self.trial.spec.seed,
            cost=cost,
        )
        for name, when, evaluator in self.evaluators:
            if self._due(evaluator, when, after_task):
                self._take(name, evaluator, checkpoint)
        if self.records is not None and after_task != BEFORE_TRAINING:
            for kind in self.settings.records:
                write_records(kind, checkpoint, self.records)
        self.position.eval_seconds += time.perf_counter() - started

    def _take(self, name: str, evaluator: Evaluator, checkpoint: Checkpoint) -> None:
        """Measure, and keep what is found; details only where there is a folder for them."""
        after_task = checkpoint.after_task
        for found in evaluator.evaluate(checkpoint):
            if isinstance(found, Measurement):
                self.position.measured.append(self._entry(after_task, name, found))
            elif self.records is not None:
                write_details(found, after_task, self.records)

    def _due(self, evaluator: Evaluator, when: str, after_task: int) -> bool:
        if after_task == BEFORE_TRAINING:
            return evaluator.before_training
        return when == "each" or after_task == len(self.scenario.tasks) - 1

    def _entry(self, after_task: int, evaluator: str, found: Measurement) -> dict[str, Any]:
        return {
            "after_task": after_task,
            "evaluator": evaluator,
            **asdict(found),
            "samples_seen": self.position.tally.samples,
            "train_seconds": self.position.train_seconds,
        }

    def _payload(self) -> dict[str, Any]:
        position = asdict(self.position)
        measured = json.dumps(position.pop("measured"))
        return {
            "trial_id": self.trial.trial_id,
            "state": self.method.state_dict(),
            "progress": position,
            "measured": measured,
            "about": json.dumps(self.about),
        }

    def _resume(self, folder: CheckpointFolder) -> None:
        payload = folder.newest()
        if payload is None or payload["trial_id"] != self.trial.trial_id:
            return
        try:
            self.method.load_state_dict(payload["state"])
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{folder.folder}: made by another version of this program ({error}); "
                "delete it to start the trial anew"
            ) from error
        progress = dict(payload["progress"])
        progress["tally"] = Tally(**progress["tally"])
        progress["attempts"] += 1
        self.position = _Position(**progress, measured=json.loads(payload["measured"]))

    def _progress(self) -> Progress:
        position = self.position
        return Progress(
            self.trial.trial_id,
            len(self.scenario.tasks),
            accuracies(position.measured, self.trial.primary, position.next_task),
            position.train_seconds + position.eval_seconds,
        )


def rows_of(trial: Trial, measured: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What a trial has measured, as the store keeps it."""
    spec = trial.spec
    return [
        Row(
            trial_id=trial.trial_id,
            suite=trial.suite,
            method=spec.method.name,
            label=trial.label,
            dataset=trial.dataset_label,
            distribution=spec.distribution,
            num_tasks=spec.tasks_learned,
            protocol=trial.protocol_name,
            seed=spec.seed,
            split=spec.protocol["split"],
            **entry,
        )
        for entry in measured
    ]


def times_of(progress: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a trial's time, from the position that its checkpoints keep."""
    return {
        "started": progress["started"],
        "attempts": progress["attempts"],
        "seconds": progress["train_seconds"] + progress["eval_seconds"],
    }


def _watch(steps: Iterator[Losses], device: torch.device) -> None:
    """Drive a method through a task, stopping it if a loss is not finite."""
    bad = torch.zeros((), dtype=torch.bool, device=device)
    for step, losses in enumerate(steps, start=1):
        if losses:
            bad |= ~torch.isfinite(total(losses))
        if step % DIVERGENCE_CHECK == 0 and bool(bad):
            break
    if bool(bad):
        raise DivergedError("a loss became infinite or not a number")

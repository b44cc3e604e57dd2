"""Run one trial: the only training loop in the project.

A trial is made of tasks. After each one the method is measured and its whole state saved, so that
whatever happens costs at most one task, and the numbers come out the same, bit for bit.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
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


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running trial is: tasks learned, and the mean primary accuracy over tasks seen."""

    trial_id: str
    tasks_done: int
    num_tasks: int
    accuracy: float | None


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
        for task in self.scenario.tasks[self.position.next_task :]:
            self._learn(task)
            self._measure(task.position)
            self.position.next_task = task.position + 1
            folder.save(task.position, self._payload())
            notify(self._progress())
        return self._rows()

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
        done = self.position.next_task
        row = [
            entry["value"]
            for entry in self.position.measured
            if entry["after_task"] == done - 1
            and 0 <= entry["on_task"] < done
            and entry["metric"] == "accuracy"
            and entry["evaluator"] == self.trial.primary
            and entry["condition"] is None
        ]
        accuracy = math.fsum(row) / len(row) if row else None
        return Progress(self.trial.trial_id, done, len(self.scenario.tasks), accuracy)

    def _rows(self) -> list[Row]:
        trial, spec = self.trial, self.trial.spec
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
                split=self.settings.split,
                **entry,
            )
            for entry in self.position.measured
        ]


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

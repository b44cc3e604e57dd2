"""The body of every executor: one trial from a claim on it to its stored result.

What a trial raises ends that trial alone: it is noted in the store and told in the outcome, and the
other trials go on.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from harness.device import device_for, reproducible
from harness.manifest import identity, manifest, now
from harness.spec import Trial
from harness.store import DIVERGED, Failure, Store
from harness.trial import DivergedError, Progress, StopTraining, TrialRun, rows_of, times_of

Status = Literal["done", "diverged", "failed", "busy", "stopped"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What all trials of a run share; sent to every worker.

    `keep_diverged`: leave the checkpoints of a trial that diverged, for `seal`.
    """

    results: Path
    data_root: Path
    git: Mapping[str, Any]
    keep_diverged: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended: stored, diverged, failed, busy in the hands of another run, or stopped.

    A stopped trial is not stored; `seal` does that.
    """

    trial_id: str
    status: Status
    detail: str = ""


def execute(trial: Trial, setup: Setup, notify: Callable[[Progress], None]) -> Outcome:
    """Run and store a trial unless it is stored already or another process is running it."""
    store = Store(setup.results)
    with store.claim(trial.trial_id) as claimed:
        if store.has(trial.trial_id):
            _tidy(store, trial.trial_id)
            return Outcome(trial.trial_id, "done")
        if not claimed:
            return Outcome(trial.trial_id, "busy")
        try:
            _run(trial, setup, store, notify)
        except StopTraining:
            return Outcome(trial.trial_id, "stopped")
        except Exception as error:
            outcome = _failed(trial, store, error)
            if outcome.status == "diverged" and not setup.keep_diverged:
                store.checkpoints(trial.trial_id).clear()
            return outcome
        _tidy(store, trial.trial_id)
        return Outcome(trial.trial_id, "done")


def _run(trial: Trial, setup: Setup, store: Store, notify: Callable[[Progress], None]) -> None:
    device = device_for(trial.resources)
    with reproducible(trial.resources.threads) as flags:
        run = TrialRun(trial, setup.data_root, device)
        run.records = store.records(trial.trial_id)
        run.about = manifest(trial, run.scenario, device=device, flags=flags, git=setup.git)
        rows = run.run(store.checkpoints(trial.trial_id), notify, started=now())
    store.write(rows, {**run.about, **run.times(), "ended": now()})


def seal(trial: Trial, tasks: int, store: Store) -> Trial | None:
    """Store what a trial that ended after `tasks` tasks has measured, as a trial of its own.

    It is made of the trial's newest checkpoint; nothing is trained. The checkpoints then go.

    Returns:
        The trial that is stored; None if there is no checkpoint after that task.
    """
    stopped = replace(trial, spec=replace(trial.spec, stop_after=tasks))
    if not store.has(stopped.trial_id):
        payload = store.checkpoints(trial.trial_id).newest()
        if payload is None or payload["progress"]["next_task"] != tasks:
            return None
        document = {
            **json.loads(payload["about"]),
            **identity(stopped),
            **times_of(payload["progress"]),
            "ended": now(),
        }
        store.write(rows_of(stopped, json.loads(payload["measured"])), document)
    store.checkpoints(trial.trial_id).clear()
    return stopped


def _tidy(store: Store, trial_id: str) -> None:
    store.checkpoints(trial_id).clear()
    store.clear_failure(trial_id)


def _failed(trial: Trial, store: Store, error: Exception) -> Outcome:
    kind, message = classify(error)
    earlier = store.failures().get(trial.trial_id)
    failure = Failure(
        trial_id=trial.trial_id,
        kind=kind,
        message=message,
        traceback="".join(traceback.format_exception(error)),
        attempt=earlier.attempt + 1 if earlier else 1,
        time=now(),
        title=trial.title,
    )
    store.fail(failure)
    if kind == DIVERGED:
        return Outcome(trial.trial_id, "diverged", message)
    return Outcome(trial.trial_id, "failed", f"{kind}: {message}")


def classify(error: BaseException) -> tuple[str, str]:
    """The class of a failure and its first line."""
    lines = str(error).strip().splitlines()
    message = lines[0] if lines else type(error).__name__
    if isinstance(error, DivergedError):
        return DIVERGED, message
    # On the CPU, PyTorch has no class of its own for it.
    no_memory = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if no_memory or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out of memory", message
    return "user", message if isinstance(
        error, ValueError
    ) else f"{type(error).__name__}: {message}"

"""The executor on Ray Tune. Tune schedules; the store is the truth.

Tune gets ids, not settings; it keeps no checkpoints and no results of its own. A worker that dies
costs a trial its current task: Tune starts the trial again and it goes on from its checkpoint.
Nothing else in the project imports Ray, but for the hyperparameter search.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial as TuneTrial

from harness.cluster import ENVIRONMENT, check_address
from harness.config import ROOT
from harness.errors import UserError
from harness.execute import Outcome, Setup, execute
from harness.inline import BUSY_SECONDS
from harness.manifest import now
from harness.progress import Listener
from harness.spec import Resources, Trial
from harness.store import Failure, Store
from harness.trial import Progress

WAVE: Final = 2000
"""Trials a Tuner gets at once: its own state grows by 10 KB a trial and is rewritten whole."""

RETRIES: Final = 3
"""How often a trial is started again after its worker was lost."""

_SHIPPED: Final = ("harness", "methods")
"""Packages that workers import: shipped alone, since the folder around them may hold results."""

_init = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine alone.

    Raises:
        UserError: if the cluster cannot be joined.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Tune would print the traceback of a lost worker; the listener is told of it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        _init(address="local", include_dashboard=False)
    else:
        check_address(address)
        _join(address)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would print a stack and exit with 15


def _join(address: str) -> None:
    packages = [str(ROOT / name) for name in _SHIPPED]
    code = {"py_modules": packages, "excludes": ["**/__pycache__"], "env_vars": ENVIRONMENT}
    try:
        _init(address=address, runtime_env=code)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        # Ray looks for a token of its own accord only where it starts or finds a cluster itself.
        token = "" if "RAY_AUTH_MODE" in os.environ else "; does it ask for RAY_AUTH_MODE=token?"
        reason = " ".join(str(error).split())
        raise UserError(f"--address {address}: cannot join: {reason}{token}") from None


def stop_ray() -> None:
    """Leave the cluster; end the one that `start_ray` started, all of its processes at once."""
    ray.shutdown()


def check_resources(trials: Sequence[Trial]) -> None:
    """Every trial must fit on some node.

    Raises:
        UserError: naming what is asked for and what there is.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for wanted in {trial.resources for trial in trials}:
        fits = [n for n in nodes if n.get("CPU", 0) >= wanted.cpu and n.get("GPU", 0) >= wanted.gpu]
        if not fits:
            most = max(nodes, key=lambda n: (n.get("GPU", 0), n.get("CPU", 0)))
            raise UserError(
                f"resources: a trial asks for cpu {wanted.cpu:g}, gpu {wanted.gpu:g}, but the "
                f"largest node has cpu {most.get('CPU', 0):g}, gpu {most.get('GPU', 0):g}; "
                "--set 'resources={cpu: 1, gpu: 0}' asks for less"
            )


def slots(trials: Sequence[Trial], workers: int | None) -> int:
    """How many trials run at once, for a forecast of the time left."""
    total = ray.cluster_resources()
    wanted = [trial.resources for trial in trials]
    cpu = max((r.cpu for r in wanted), default=1.0)
    gpu = max((r.gpu for r in wanted), default=0.0)
    fit = int(total.get("CPU", 1) / cpu)
    if gpu:
        fit = min(fit, int(total.get("GPU", 0) / gpu))
    return max(1, min(fit, workers or fit))


def run_on_ray(
    trials: Sequence[Trial], setup: Setup, listener: Listener, *, workers: int | None
) -> list[Outcome]:
    """Run all trials on the Ray that `start_ray` joined; those that another run holds come last.

    Args:
        trials: what to run.
        setup: shared by all of them; its paths must be reachable from every node.
        listener: told what happens.
        workers: at most this many trials at once; None for as many as fit.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = list(trials)
    while waiting:
        wave, waiting = waiting[:WAVE], waiting[WAVE:]
        ended = _fit(wave, setup, listener, workers)
        outcomes |= {o.trial_id: o for o in ended.values() if o.status != "busy"}
        busy = [trial for trial in wave if ended[trial.trial_id].status == "busy"]
        if busy and not waiting:
            time.sleep(BUSY_SECONDS)
        waiting += busy
    return [outcomes[trial.trial_id] for trial in trials]


class _Listening(tune.Callback):
    """Passes on what Tune reports, and keeps the outcomes."""

    def __init__(self, listener: Listener, store: Store, trials: Mapping[str, Trial]) -> None:
        self.listener = listener
        self.store = store
        self.trials = trials
        self.outcomes: dict[str, Outcome] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks; there is nothing to restore of this one."""
        return {}

    def on_trial_start(self, *_: object, trial: TuneTrial, **__: object) -> None:
        self.listener.started(trial.config["trial_id"])

    def on_trial_result(
        self, *_: object, trial: TuneTrial, result: dict[str, Any], **__: object
    ) -> None:
        trial_id = trial.config["trial_id"]
        if "status" in result:
            self._end(Outcome(trial_id, result["status"], result["detail"]))
        else:
            self.listener.progressed(progress_of(result))

    def on_trial_recover(self, *_: object, trial: TuneTrial, **__: object) -> None:
        self.listener.restarted(trial.config["trial_id"])

    def on_trial_error(self, *_: object, trial: TuneTrial, **__: object) -> None:
        file = Path(trial.error_file) if trial.error_file else None
        self.lose(trial.config["trial_id"], file.read_text() if file and file.exists() else "")

    def lose(self, trial_id: str, reason: str = "") -> None:
        """Note that a trial's worker was lost for good; `reason` is what Ray says of it."""
        if self.store.has(trial_id):  # it was lost after its work was done, or done elsewhere
            self._end(Outcome(trial_id, "done"))
            return
        kind, message = lost(reason)
        self.store.fail(
            Failure(
                trial_id=trial_id,
                kind=kind,
                message=message,
                traceback=reason,
                attempt=RETRIES + 1,
                time=now(),
                title=self.trials[trial_id].title,
            )
        )
        self._end(Outcome(trial_id, "failed", f"{kind}: {message}"))

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.trial_id] = outcome
        self.listener.ended(outcome)


def lost(reason: str) -> tuple[str, str]:
    """Class and first line of a failure, from what Ray says of a worker that ended early."""
    if "OutOfMemoryError" in reason or "low on memory" in reason:
        return "out of memory", "Ray ended its worker, because the node ran out of memory"
    if "Traceback" in reason:  # not the trial, whose errors are its outcome, but what surrounds it
        return "user", reason.strip().splitlines()[-1]
    return "lost", f"its worker was lost {RETRIES + 1} times"


def _fit(
    wave: Sequence[Trial], setup: Setup, listener: Listener, workers: int | None
) -> dict[str, Outcome]:
    """One Tuner over one wave of trials; an outcome for each of them."""
    trials = {trial.trial_id: trial for trial in wave}
    resources = {trial_id: trial.resources for trial_id, trial in trials.items()}
    listening = _Listening(listener, Store(setup.results), trials)
    trainable = tune.with_parameters(
        _train,
        trials={trial_id: trial.to_json() for trial_id, trial in trials.items()},
        setup=setup,
    )
    with tune_folder(setup.results) as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, lambda config: request(resources[config["trial_id"]])),
            param_space={"trial_id": tune.grid_search(list(trials))},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=workers,
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name="wave",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[listening],
                verbose=0,
            ),
        )
        tuner.fit()
    for trial_id in trials.keys() - listening.outcomes.keys():
        listening.lose(trial_id)
    return listening.outcomes


def told(progress: Progress) -> dict[str, str]:
    """What a worker reports of its trial; as one text, since Tune takes mappings apart."""
    return {"progress": json.dumps(asdict(progress))}


def progress_of(result: Mapping[str, Any]) -> Progress:
    """The same once more."""
    found: dict[str, Any] = json.loads(result["progress"])
    accuracies = tuple(found.pop("accuracies"))
    return Progress(accuracies=accuracies, **found)


@contextmanager
def tune_folder(results: Path) -> Generator[str]:
    """A folder for what Tune writes, which nobody needs afterwards."""
    folder = results / ".tune" / uuid.uuid4().hex[:8]
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


def request(resources: Resources) -> tune.PlacementGroupFactory:
    bundle = {"CPU": resources.cpu}
    if resources.gpu:
        bundle["GPU"] = resources.gpu
    return tune.PlacementGroupFactory([bundle])


def _train(
    config: Mapping[str, str], *, trials: Mapping[str, Mapping[str, Any]], setup: Setup
) -> dict[str, str]:
    """What a worker runs: one trial, one small report a task, its outcome as the last."""

    def report(progress: Progress) -> None:
        if progress.tasks_done:
            tune.report(told(progress))

    trial = Trial.from_json(trials[config["trial_id"]])
    outcome = execute(trial, setup, report)
    return {"status": outcome.status, "detail": outcome.detail}

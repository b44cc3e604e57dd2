"""A search on Ray Tune: the desk says which configuration is next and which one stops.

Tune's own searchers and schedulers keep what they know in the driver's memory; the studies keep it
in the store, and so outlive the driver.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.execute import Outcome, Setup
from harness.manifest import now
from harness.scheduler import (
    RETRIES,
    check_resources,
    lost,
    progress_of,
    request,
    slots,
    start_ray,
    stop_ray,
    told,
    tune_folder,
)
from harness.search import Desk, Key, patiently
from harness.spec import Trial
from harness.store import Failure, Store
from harness.trial import Progress


def start(trials: Sequence[Trial], address: str | None) -> None:
    """Join Ray, or start one here, and see that `trials` fit.

    Raises:
        UserError: if it cannot be joined or a trial asks for more than any node has.
    """
    start_ray(address)
    check_resources(trials)


stop = stop_ray


def search(desk: Desk, trials: Sequence[Trial], setup: Setup, *, at_once: int | None) -> None:
    """Run what the desk hands out until there is no more.

    Args:
        desk: hands out configurations.
        trials: some like those of the configurations, for what they reserve.
        setup: shared by all of them.
        at_once: at most so many at once; None: as many as fit.
    """
    most = max((trial.resources for trial in trials), key=lambda one: (one.gpu, one.cpu))
    with tune_folder(setup.results) as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_train, setup=setup), request(most)),
            tune_config=tune.TuneConfig(
                search_alg=_Configurations(desk),
                scheduler=_Rungs(desk),
                num_samples=-1,  # until the searcher says that it has no more
                max_concurrent_trials=slots(trials, at_once),
                reuse_actors=True,  # a trial that is stopped ends by SystemExit in its next report
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_LostWorkers(desk, Store(setup.results))],
                verbose=0,
            ),
        )
        tuner.fit()


@final
class _Configurations(Searcher):
    """Asks the desk; Tune has nothing to save of it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes it down to go on by; the studies do that."""
        return {}

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - a mapping, or Tune's word for no more
        del trial_id
        job = self.desk.next()
        if job is None:
            return Searcher.FINISHED
        return {"key": list(job.key), "trials": json.dumps([one.to_json() for one in job.trials])}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001
    ) -> None:
        """The scheduler has told the desk."""

    def set_search_properties(self, *_: object, **__: object) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """The studies are in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Likewise."""


@final
class _Rungs(FIFOScheduler):
    """Passes on what workers report, and stops those that the desk wants stopped."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def __getstate__(self) -> dict[str, Any]:
        """Likewise."""
        return {}

    def on_trial_result(
        self, tune_controller: object, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        del tune_controller
        key = _key(trial)
        over = False
        if "progress" in result:
            over = self.desk.progressed(key, progress_of(result))
        elif "outcome" in result:
            over = self.desk.ended(key, Outcome(**json.loads(result["outcome"])))
        return TrialScheduler.STOP if over else TrialScheduler.CONTINUE


@final
class _LostWorkers(tune.Callback):
    """Tells the desk of workers that were lost: some have another in their place, some not."""

    def __init__(self, desk: Desk, store: Store) -> None:
        self.desk = desk
        self.store = store

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks; there is nothing to restore of this one."""
        return {}

    def on_trial_recover(self, *_: object, trial: TuneTrial, **__: object) -> None:
        self.desk.restarted(_key(trial))

    def on_trial_error(self, *_: object, trial: TuneTrial, **__: object) -> None:
        """For good, or what surrounds its trials failed."""
        file = Path(trial.error_file) if trial.error_file else None
        reason = file.read_text() if file and file.exists() else ""
        kind, message = lost(reason)
        running = self.desk.running(_key(trial))
        self.store.fail(
            Failure(
                trial_id=running.trial_id,
                kind=kind,
                message=message,
                traceback=reason,
                attempt=RETRIES + 1,
                time=now(),
                title=running.title,
            )
        )
        self.desk.ended(_key(trial), Outcome(running.trial_id, "failed", f"{kind}: {message}"))


def _key(trial: TuneTrial) -> Key:
    place, number = trial.config["key"]
    return place, number


def _train(config: Mapping[str, Any], *, setup: Setup) -> None:
    """What a worker runs: the trials of a configuration, one after the other."""

    def report(progress: Progress) -> None:
        if progress.tasks_done:
            tune.report(told(progress))

    for trial in map(Trial.from_json, json.loads(config["trials"])):
        outcome = patiently(trial, setup, report)
        tune.report({"outcome": json.dumps(asdict(outcome))})
        if outcome.status != "done":
            return

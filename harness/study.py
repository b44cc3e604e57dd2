"""A study: which configurations were tried and how they did, in Optuna's storage.

The driver alone touches it. What is chosen and what is stopped depends on what is stored and on the
search's seed, on nothing that a process keeps: a search that was killed goes on as if it had not
been.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.config import plain
from harness.draw import STATES, End, Tried, draw
from harness.errors import UserError
from harness.execute import Outcome, seal
from harness.rungs import goes_on, rungs, values_by_step
from harness.space import Configuration
from harness.spec import Trial
from harness.store import Store
from harness.study_plan import StudyPlan
from harness.trial import Accuracies, Progress, accuracies

_FREE: Final = ("trials", "budget", "max_concurrent", "test_seeds")
"""Options that may change between two runs of a search: no configuration depends on them."""


@dataclass(slots=True)
class Attempt:
    """A configuration that is running: its trials, a seed each, and how far they have come.

    `live` is Optuna's trial, `known` the tasks after which it has a value.
    """

    number: int
    configuration: Configuration
    trials: list[Trial]
    live: optuna.Trial
    known: set[int]
    ended: int = 0
    curves: list[Accuracies] = field(default_factory=list[Accuracies])
    seconds: list[float] = field(default_factory=list[float])
    stored: list[str] = field(default_factory=list[str])

    def at(self, seed: int, curve: Accuracies, seconds: float) -> None:
        """Note how far trial number `seed` has come."""
        self.curves[seed:] = [curve]
        self.seconds[seed:] = [seconds]

    @property
    def tasks(self) -> int:
        return sum(len(curve) for curve in self.curves)


@final
class Study:
    """One study of a search.

    Args:
        plan: what it searches.
        store: where its trials are.
        storage: Optuna's, of the whole search.

    Raises:
        UserError: if the storage has a study of that name that searched something else.
    """

    def __init__(self, plan: StudyPlan, store: Store, storage: optuna.storages.BaseStorage) -> None:
        self.plan = plan
        self.store = store
        self.study = optuna.create_study(
            study_name=plan.name,
            storage=storage,
            sampler=RandomSampler(0),  # never asked
            direction="maximize",
            load_if_exists=True,
        )
        self._check_same()
        self._running: dict[int, Attempt] = {}

    def wants_more(self) -> bool:
        """Whether a configuration is unfinished or still to be chosen, as far as one can tell."""
        tried = self.tried()
        unfinished = any(one.end == "running" for one in tried)
        return unfinished or (len(tried) < self.plan.configurations and not self._broke())

    def begin(self) -> Attempt | None:
        """The next configuration to run, those first that a killed run left; None: no more.

        It is None too while the budget is used up.
        """
        while (attempt := self._left_over() or self._new()) is not None:
            self._running[attempt.number] = attempt
            stop = attempt.live.user_attrs.get("stop")
            if stop is None or not self._stop(attempt, *stop):
                return attempt
        return None

    def progressed(self, number: int, progress: Progress) -> bool:
        """Take in how a trial does; True if its configuration was stopped, and is stored as such.

        After a trial's last task nothing is decided before the trial is stored.
        """
        attempt = self._running[number]
        if progress.trial_id in attempt.stored:  # told again by a worker in a lost one's place
            return False
        attempt.at(attempt.ended, progress.accuracies, progress.seconds)
        self._report(attempt)
        done = progress.tasks_done
        if done in (0, self.plan.tasks) or not self._falls_behind(attempt):
            return False
        return self._stop(attempt, attempt.ended, done)

    def ended(self, number: int, outcome: Outcome) -> bool:
        """Take in how a trial ended; True if its configuration needs no further trial."""
        attempt = self._running[number]
        if outcome.trial_id in attempt.stored:
            return False
        if outcome.status != "done":
            end = "diverged" if outcome.status == "diverged" else "failed"
            self._keep(attempt)
            self._finish(attempt, end, outcome.detail)
            return True
        trial = attempt.trials[attempt.ended]
        table, document = self.store.read(trial.trial_id)
        curve = accuracies(table.to_pylist(), trial.primary, self.plan.tasks)
        attempt.at(attempt.ended, curve, document["seconds"])
        attempt.stored.append(trial.trial_id)
        attempt.ended += 1
        self._report(attempt)
        if attempt.ended == len(attempt.trials):
            self._finish(attempt, "done")
            return True
        if self._falls_behind(attempt):
            self._finish(attempt, "stopped")
            return True
        return False

    def rungs(self) -> list[int]:
        """Tasks, over all seeds, after which configurations may be stopped."""
        options = self.plan.options
        if options.scheduler == "none":
            return []
        return rungs(options.grace, options.eta, self.plan.tasks * len(options.seeds))

    def running(self, number: int) -> Trial:
        """The trial that a configuration is at."""
        attempt = self._running[number]
        return attempt.trials[attempt.ended]

    def tried(self) -> list[Tried]:
        """Every configuration so far, in the order of their numbers."""
        return [_tried(trial) for trial in self.study.get_trials(deepcopy=False)]

    def best(self) -> Tried | None:
        """The configuration to choose: the highest value, of equal ones the first."""
        done = [one for one in self.tried() if one.value is not None]
        return max(done, key=lambda one: one.value or 0.0) if done else None

    def spent(self) -> tuple[float, float]:
        """Trainings and hours so far, as `Budget` counts them."""
        tried = self.tried()
        running = self._running.values()
        tasks = sum(one.tasks for one in tried) + sum(one.tasks for one in running)
        seconds = math.fsum([*(one.seconds for one in tried), *(sum(r.seconds) for r in running)])
        return tasks / self.plan.tasks, seconds / 3600

    def _check_same(self) -> None:
        options = {k: v for k, v in plain(self.plan.options).items() if k not in _FREE}
        space = {name: repr(one) for name, one in self.plan.space.items()}
        spec = {k: v for k, v in self.plan.spec.to_json().items() if k != "seed"}
        now = json.loads(json.dumps({"space": space, "spec": spec, **options}))
        before = self.study.user_attrs.get("plan")
        if before is None:
            self.study.set_user_attr("plan", now)
            return
        changed = sorted(key for key in now if before.get(key) != now[key])
        if changed:
            raise UserError(
                f"{self.plan.path}: {', '.join(changed)} changed since the search "
                f"{self.plan.name} in {self.store.root} began; search into another --results"
            )

    def _left_over(self) -> Attempt | None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._running:
                return self._attempt(trial, self.plan.trials(_configuration(trial)))
        return None

    def _attempt(self, trial: FrozenTrial, trials: list[Trial]) -> Attempt:
        live = optuna.Trial(self.study, trial._trial_id)
        known = set(trial.intermediate_values)
        return Attempt(trial.number, _configuration(trial), trials, live, known)

    def _new(self) -> Attempt | None:
        while len(tried := self.tried()) < self.plan.configurations and not self._broke():
            configuration = draw(self.plan, tried)
            if configuration is None:
                return None
            try:
                trials = self.plan.trials(configuration)
            except UserError as error:  # each value fits, but not all of them together
                ended = {"end": "failed", "detail": str(error), "tasks": 0, "seconds": 0.0}
                self._add(TrialState.FAIL, configuration, ended)
                continue
            self._add(TrialState.RUNNING, configuration, {})
            return self._attempt(self.study.get_trials(deepcopy=False)[-1], trials)
        return None

    def _add(
        self, state: TrialState, configuration: Configuration, attributes: Mapping[str, Any]
    ) -> None:
        """Note a configuration, whole or not at all."""
        distributions = {name: one.distribution() for name, one in self.plan.space.items()}
        self.study.add_trial(
            create_trial(
                state=state,
                params=configuration,
                distributions=distributions,
                user_attrs=dict(attributes),
            )
        )

    def _broke(self) -> bool:
        budget, (trainings, hours) = self.plan.options.budget, self.spent()
        return trainings >= (budget.trainings or math.inf) or hours >= (budget.hours or math.inf)

    def _report(self, attempt: Attempt) -> None:
        """Store the values after every task that are not stored yet."""
        values = values_by_step(attempt.curves, self.plan.tasks, self.plan.options.metric)
        for step in sorted(values.keys() - attempt.known):
            attempt.live.report(values[step], step)
            attempt.known.add(step)

    def _falls_behind(self, attempt: Attempt) -> bool:
        """Whether asha stops it where it is."""
        options, step = self.plan.options, attempt.tasks
        if step not in self.rungs():
            return False
        trials = self.study.get_trials(deepcopy=False)
        value = trials[attempt.number].intermediate_values.get(step)
        reached = [t.intermediate_values[step] for t in trials if step in t.intermediate_values]
        return value is not None and not goes_on(value, reached, options.eta)

    def _stop(self, attempt: Attempt, seed: int, tasks: int) -> bool:
        """Store a trial as stopped where its checkpoint is; False if there is none, it goes on."""
        attempt.live.set_user_attr("stop", [seed, tasks])
        stopped = seal(attempt.trials[seed], tasks, self.store)
        if stopped is None:
            attempt.live.set_user_attr("stop", None)
            return False
        attempt.stored = [trial.trial_id for trial in attempt.trials[:seed]] + [stopped.trial_id]
        if len(attempt.curves) <= seed:  # stopped by the run before this one
            self._recall(attempt)
        self._finish(attempt, "stopped")
        return True

    def _keep(self, attempt: Attempt) -> None:
        """Store what a trial measured before it failed; it is not tried again."""
        trial = attempt.trials[attempt.ended]
        tasks = len(attempt.curves[attempt.ended]) if len(attempt.curves) > attempt.ended else 0
        kept = seal(trial, tasks, self.store) if tasks else None
        if kept is not None:
            attempt.stored.append(kept.trial_id)
        self.store.checkpoints(trial.trial_id).clear()

    def _recall(self, attempt: Attempt) -> None:
        """What is stored of a configuration that another process ran."""
        for place, trial_id in enumerate(attempt.stored):
            table, document = self.store.read(trial_id)
            stop = document["spec"].get("stop_after", self.plan.tasks)
            primary = attempt.trials[place].primary
            attempt.at(place, accuracies(table.to_pylist(), primary, stop), document["seconds"])
        self._report(attempt)

    def _finish(self, attempt: Attempt, end: End, detail: str = "") -> None:
        values = values_by_step(attempt.curves, self.plan.tasks, self.plan.options.metric)
        value = values.get(self.plan.tasks * len(attempt.trials))
        if end == "done" and value is None:
            end, detail = "failed", f"{self.plan.options.metric} was not measured"
        for name, known in {
            "end": end,
            "trial_ids": attempt.stored,
            "tasks": attempt.tasks,
            "seconds": math.fsum(attempt.seconds),
            "detail": detail,
        }.items():
            attempt.live.set_user_attr(name, known)
        del self._running[attempt.number]
        self.study.tell(attempt.number, value if end == "done" else None, STATES[end])


def _configuration(trial: FrozenTrial) -> Configuration:
    return dict(trial.params)


def _tried(trial: FrozenTrial) -> Tried:
    known: dict[str, Any] = trial.user_attrs
    finished = trial.state.is_finished()
    return Tried(
        number=trial.number,
        configuration=_configuration(trial),
        end=known["end"] if finished else "running",
        value=trial.value if finished and known["end"] == "done" else None,
        values=dict(sorted(trial.intermediate_values.items())),
        trial_ids=tuple(known.get("trial_ids", ())) if finished else (),
        tasks=known["tasks"] if finished else 0,
        seconds=known["seconds"] if finished else 0.0,
        detail=known.get("detail", "") if finished else "",
    )


def open_storage(store: Store, name: str) -> optuna.storages.BaseStorage:
    """Optuna's storage of a search, an SQLite file in the store."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.RDBStorage(f"sqlite:///{store.storage(name)}")

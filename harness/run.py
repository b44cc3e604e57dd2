"""Running a suite = wanted trials minus stored ones: resume, retry and more seeds by one rule."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch
from rich.console import Console

from harness import cluster
from harness.assembly import build_evaluators, build_scenario, dataset_key
from harness.config import settings
from harness.data.entries import IMBALANCE
from harness.data.shelf import data_root
from harness.device import device_for
from harness.errors import UserError
from harness.execute import Outcome, Setup
from harness.forecast import Forecast
from harness.grid import Skip, expand, select
from harness.inline import run_inline
from harness.manifest import git_revision, suite_document
from harness.progress import ProgressDisplay
from harness.spec import ProtocolSettings, Trial
from harness.store import DIVERGED, Failure, Store
from harness.suite import Suite, load_suite, parse_only

State = Literal["done", "diverged", "failed", "missing"]
STATES: Final[tuple[State, ...]] = ("done", "diverged", "failed", "missing")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    suite: Path
    results: Path | None = None
    assignments: Sequence[str] = ()
    only: Sequence[str] = ()
    retry: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite against a store: what is wanted, and what state it is in.

    `trials` are those that `--only` lets through, `all_trials` those of the whole suite.
    """

    suite: Suite
    store: Store
    trials: list[Trial]
    all_trials: list[Trial]
    skips: list[Skip]
    states: dict[str, State]
    failures: dict[str, Failure]
    forecast: Forecast
    retry: frozenset[str] = field(default_factory=frozenset[str])

    def to_run(self) -> list[Trial]:
        """Missing and failed trials, longest first so that none is left to run alone at the end."""
        again = {"missing", "failed"} | self.retry
        wanted = {t.trial_id: t for t in self.trials if self.states[t.trial_id] in again}
        return sorted(wanted.values(), key=lambda t: -(self.forecast.seconds(t) or 0.0))


def make_plan(request: Request) -> Plan:
    """Read the suite, look into the store, run nothing.

    Raises:
        UserError: for anything in the request or the store that does not fit.
    """
    suite = load_suite(request.suite, request.assignments)
    all_trials, skips = expand(suite)
    trials = select(all_trials, parse_only(request.only))
    store = Store(request.results or Path("results") / suite.name)
    if store.root.exists() and not store.root.is_dir():
        raise UserError(f"--results {store.root}: not a folder")
    stored, failures = store.stored(), store.failures()
    states: dict[str, State] = {}
    for trial in trials:
        states[trial.trial_id] = _state(trial.trial_id, stored, failures)
        if states[trial.trial_id] == "done":
            store.check(trial.trial_id)
    forecast = Forecast.from_store(store, (t.trial_id for t in all_trials))
    return Plan(suite, store, trials, all_trials, skips, states, failures, forecast, request.retry)


def _state(trial_id: str, stored: frozenset[str], failures: dict[str, Failure]) -> State:
    if trial_id in stored:
        return "done"
    if trial_id not in failures:
        return "missing"
    return "diverged" if failures[trial_id].kind == DIVERGED else "failed"


def run_plan(
    plan: Plan,
    console: Console,
    *,
    executor: Literal["ray", "inline"],
    address: str | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Run what a plan leaves to do and store it.

    Raises:
        UserError: if the store cannot be written, or data, a GPU or the cluster are not to be had;
            nothing has been run then.
    """
    if executor == "inline" and (address or (workers or 1) > 1):
        raise UserError("--executor inline runs one trial at a time, without --address")
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if address is not None:
        cluster.check_address(address)
    plan.store.create()
    plan.store.write_suite(plan.suite.name, suite_document(plan.suite, plan.all_trials))
    trials = plan.to_run()
    if not trials:
        return []
    root = data_root(plan.suite.data_root)
    if address is None:
        check_data(trials, root, console)
    setup = Setup(plan.store.root, root, git_revision())
    display = ProgressDisplay.of(console, trials, plan.forecast)
    if executor == "inline":
        for trial in trials:
            device_for(trial.resources)
        with display.shown():
            return run_inline(trials, setup, display)
    cluster.prepare()
    from harness import scheduler  # Ray takes seconds to import, and reads the switches as it is

    try:
        scheduler.start_ray(address)
        scheduler.check_resources(trials)
        display.slots = scheduler.slots(trials, workers)
        with display.shown():
            return scheduler.run_on_ray(trials, setup, display, workers=workers)
    finally:
        scheduler.stop_ray()


def check_data(trials: Iterable[Trial], root: Path, console: Console) -> None:
    """Load each data set once before anything starts; generated ones are cached by that.

    What evaluators need besides is looked for as well.

    Raises:
        DataError: if something is not there or damaged.
    """
    seen: set[Hashable] = set()
    for trial in trials:
        tail, uses = trial.spec.dataset.settings.get(IMBALANCE), trial.spec.protocol["evaluators"]
        key = (dataset_key(trial.spec), json.dumps([tail, uses]))
        if key not in seen:
            seen.add(key)
            if console.is_terminal:  # a line, as images that are decoded have a bar of their own
                console.print(f"loading {trial.dataset_label}", markup=False)
            scenario = build_scenario(trial.spec, root, torch.device("cpu"))
            chosen = settings(ProtocolSettings, trial.spec.protocol, where="protocol")
            for _, _, evaluator in build_evaluators(chosen):
                evaluator.prepare(scenario, root)

"""Running a search: configurations one after the other or on Ray, until its studies have enough."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from rich.console import Console

from harness import cluster
from harness.data.shelf import data_root
from harness.device import device_for
from harness.errors import UserError
from harness.execute import Outcome, Setup, execute
from harness.inline import BUSY_SECONDS
from harness.manifest import git_revision
from harness.run import check_data
from harness.search_file import Search
from harness.search_progress import SearchDisplay
from harness.spec import Resources, Trial
from harness.store import Store
from harness.study import Study, open_storage
from harness.trial import Progress, StopTraining
from harness.tuned import write_document, write_suite

Key = tuple[int, int]
"""A study's place among those of its search, and the number of one of its configurations."""


@dataclass(frozen=True, slots=True)
class Job:
    """A configuration that is to run."""

    key: Key
    trials: Sequence[Trial]


@final
class Desk:
    """Hands out the configurations of a search's studies, and takes in how they do.

    The study with the fewest configurations is served first, so that all of them go forward
    together and each knows of its own results when it chooses.
    """

    def __init__(
        self, studies: Sequence[Study], display: SearchDisplay, note: Callable[[], None]
    ) -> None:
        self.studies = studies
        self.display = display
        self.note = note
        self._counts = [len(study.tried()) for study in studies]

    def next(self) -> Job | None:
        """A configuration to run; None: there will be no more."""
        for place in sorted(range(len(self.studies)), key=self._counts.__getitem__):
            study = self.studies[place]
            attempt = study.begin()
            if attempt is not None:
                self._counts[place] = max(self._counts[place], attempt.number + 1)
                self.display.began(study, attempt)
                return Job((place, attempt.number), attempt.trials)
        return None

    def progressed(self, key: Key, progress: Progress) -> bool:
        """Whether the configuration is to stop at once; it is stored then."""
        place, number = key
        study = self.studies[place]
        stopped = study.progressed(number, progress)
        if stopped:
            self._ended(key)
        elif progress.tasks_done:
            self.display.progressed(study, number, progress)
        return stopped

    def ended(self, key: Key, outcome: Outcome) -> bool:
        """Whether the configuration has no further trial to run."""
        place, number = key
        over = self.studies[place].ended(number, outcome)
        if over:
            self._ended(key)
        return over

    def running(self, key: Key) -> Trial:
        """The trial that a configuration is at."""
        place, number = key
        return self.studies[place].running(number)

    def restarted(self, key: Key) -> None:
        """A worker was lost, and its configuration goes on in another."""
        place, number = key
        self.display.restarted(self.studies[place], number)

    def _ended(self, key: Key) -> None:
        place, number = key
        self.display.ended(self.studies[place], number)
        self.note()


@dataclass(frozen=True, slots=True)
class Machines:
    """Where configurations run: on Ray, the one at `address` or this machine's, or inline."""

    executor: Literal["ray", "inline"] = "ray"
    address: str | None = None
    workers: int | None = None

    def check(self) -> None:
        """Raises UserError for what does not go together, or an address where there is no Ray."""
        if self.executor == "inline" and (self.address or (self.workers or 1) > 1):
            raise UserError("--executor inline runs one configuration at a time, without --address")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, got {self.workers}")
        if self.address is not None:
            cluster.check_address(self.address)


def run_search(
    search: Search, results: Path, console: Console, machines: Machines
) -> tuple[list[Study], Path | None]:
    """Run what a search lacks, and write the suite of the settings that it found.

    Returns:
        Its studies, and the suite's file; None if no configuration ran to its end.

    Raises:
        UserError: before anything runs, if the store or the machine does not fit, or another
            process is at this search.
    """
    machines.check()
    if results.exists() and not results.is_dir():
        raise UserError(f"--results {results}: not a folder")
    if machines.executor == "inline":
        _check_cores(search)
    store = Store(results)
    store.create()
    with store.claim(f"search-{search.name}") as claimed:
        if not claimed:
            raise UserError(f"{store.root}: another process is at the search {search.name}")
        storage = open_storage(store, search.name)
        studies = [Study(plan, store, storage) for plan in search.plans]

        def note() -> None:
            write_document(search, studies, store)

        note()
        desk = Desk(studies, SearchDisplay(console, studies), note)
        if any(study.wants_more() for study in studies):
            _run(desk, search, store, console, machines)
        return studies, write_suite(search, studies, store)


def _run(desk: Desk, search: Search, store: Store, console: Console, machines: Machines) -> None:
    trials = [trial for plan in search.plans for trial in plan.trials({})]
    root = data_root(search.data_root)
    if machines.address is None:
        check_data(trials, root, console)
    setup = Setup(store.root, root, git_revision(), keep_diverged=True)
    if machines.executor == "inline":
        for trial in trials:
            device_for(trial.resources)
        with desk.display.shown():
            _inline(desk, setup)
        return
    cluster.prepare()
    from harness import search_on_ray  # Ray takes seconds to import, and reads the switches

    caps = [cap for cap in (search.options.max_concurrent, machines.workers) if cap is not None]
    try:
        search_on_ray.start(trials, machines.address)
        with desk.display.shown():
            search_on_ray.search(desk, trials, setup, at_once=min(caps, default=None))
    finally:
        search_on_ray.stop()


def _check_cores(search: Search) -> None:
    """Without Ray, which would look for a node that is large enough."""
    wanted = max(Resources(**plan.scene["resources"]).cpu for plan in search.plans)
    here = os.cpu_count() or 1
    if wanted > here:
        raise UserError(
            f"{search.path}: resources: a trial asks for cpu {wanted:g}, but this machine has "
            f"{here}; --set 'resources={{cpu: 1}}' asks for less"
        )


def patiently(trial: Trial, setup: Setup, notify: Callable[[Progress], None]) -> Outcome:
    """`execute`, again while another run holds the trial."""
    while (outcome := execute(trial, setup, notify)).status == "busy":
        time.sleep(BUSY_SECONDS)
    return outcome


def _inline(desk: Desk, setup: Setup) -> None:
    while (job := desk.next()) is not None:
        key = job.key

        def notify(progress: Progress, key: Key = key) -> None:
            if desk.progressed(key, progress):
                raise StopTraining

        for trial in job.trials:
            outcome = patiently(trial, setup, notify)
            if outcome.status == "stopped" or desk.ended(key, outcome):
                break

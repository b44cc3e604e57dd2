"""What a trial costs on Ray besides its training: `python benchmarks/noop_trials.py [N]`.

Runs N trials through `harness.scheduler.run_on_ray`, on a Ray of this machine that is up already.
Nothing is left out but the training: each trial's file is in the store before, so that a worker
claims the trial, finds it done and says so. A run's own seconds go before the first trial starts
(Tune, then the workers, which import torch) and are shown apart from those between trials.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import final

from harness import cluster
from harness.execute import Outcome, Setup
from harness.grid import expand
from harness.spec import Trial
from harness.store import Store
from harness.suite import load_suite
from harness.trial import Progress

SUITE = """
protocol: class_incremental
methods: [finetune]
datasets: [digits]
num_tasks: [5]
"""
REPEATS = 3


@final
class Clock:
    """Notes when the first trial starts."""

    def __init__(self) -> None:
        self.first: float | None = None

    def started(self, trial_id: str) -> None:
        del trial_id
        self.first = self.first or time.perf_counter()

    def progressed(self, progress: Progress) -> None: ...

    def restarted(self, trial_id: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


def stored_trials(count: int, folder: Path) -> tuple[list[Trial], Store]:
    """So many trials, and a store that has a file of each."""
    suite = folder / "noop.yaml"
    suite.write_text(f"{SUITE}seeds: {list(range(count))}\n")
    trials, _ = expand(load_suite(suite))
    store = Store(folder / "results")
    store.create()
    for trial in trials:
        store.path(trial.trial_id).touch()
    return trials, store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="?", default=200, metavar="N")
    count: int = parser.parse_args().trials
    cluster.prepare()
    from harness import scheduler

    with tempfile.TemporaryDirectory() as scratch:
        trials, store = stored_trials(count, Path(scratch))
        setup = Setup(store.root, Path(scratch), {})
        scheduler.start_ray(None)
        print(f"{count} trials, {scheduler.slots(trials, None)} at once")
        for _ in range(REPEATS):
            clock, began = Clock(), time.perf_counter()
            outcomes = scheduler.run_on_ray(trials, setup, clock, workers=None)
            ended = time.perf_counter()
            assert {outcome.status for outcome in outcomes} == {"done"}
            first = clock.first or ended
            print(
                f"{(ended - began) / count:.3f} s/trial: {first - began:.1f} s until the first "
                f"starts, then {(ended - first) / count:.3f} s/trial"
            )
        scheduler.stop_ray()


if __name__ == "__main__":
    main()

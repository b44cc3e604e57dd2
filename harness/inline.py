"""The executor without Ray: one trial after the other in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from harness.execute import Outcome, Setup, execute
from harness.progress import Listener
from harness.spec import Trial

BUSY_SECONDS: Final = 1.0
"""Pause before asking again for trials that another run is at."""


def run_inline(trials: Sequence[Trial], setup: Setup, listener: Listener) -> list[Outcome]:
    """Run all trials; those that another run holds come last, until it has stored them."""
    outcomes: list[Outcome] = []
    waiting, refused = deque(trials), 0
    while waiting:
        trial = waiting.popleft()
        listener.started(trial.trial_id)
        outcome = execute(trial, setup, listener.progressed)
        listener.ended(outcome)
        if outcome.status != "busy":
            outcomes.append(outcome)
            refused = 0
            continue
        waiting.append(trial)
        refused += 1
        if refused >= len(waiting):
            time.sleep(BUSY_SECONDS)
    return outcomes

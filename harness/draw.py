"""What was tried, and what to try next.

Configurations are drawn by Optuna's samplers over a copy of the study in memory, made anew for each
of them, as a sampler's own generator would start from its seed again in a search that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from harness.seeds import derive_seed
from harness.space import Configuration, every, grid, size
from harness.study_plan import StudyPlan

End = Literal["done", "stopped", "diverged", "failed", "running"]

STATES: Final = {
    "done": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}
"""What each is to Optuna's samplers."""

_REDRAWS: Final = 50
"""Draws for a configuration that is new, before the search takes what it has."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One configuration and what became of it.

    Attributes:
        value: what is maximised; None unless it ran to its end.
        values: the value so far after so many tasks of all its seeds.
        trial_ids: what is stored of it, a seed each; the last may be a trial that was stopped.
        tasks: how many were learned, over all seeds.
        seconds: of training and measuring.
        detail: why it failed.
    """

    number: int
    configuration: Configuration
    end: End
    value: float | None
    values: dict[int, float]
    trial_ids: tuple[str, ...]
    tasks: int
    seconds: float
    detail: str


def draw(plan: StudyPlan, tried: Sequence[Tried]) -> Configuration | None:
    """The configuration after those that were tried; None if the space has no other."""
    options, number = plan.options, len(tried)
    before = [one.configuration for one in tried]
    if options.algorithm == "grid":
        rest = [one for one in grid(plan.space, where=str(plan.path)) if one not in before]
        return rest[0] if rest else None
    if not number and options.try_defaults and plan.default is not None:
        return plan.default
    drawn: Configuration = {}
    for attempt in range(_REDRAWS):
        seed = derive_seed(options.search_seed, "search", number, attempt) % 2**32  # numpy's
        # tpe may come back to the same few values: where it does, chance finds others.
        guided = options.algorithm == "tpe" and attempt < _REDRAWS // 2
        sampler = TPESampler(seed=seed, multivariate=True) if guided else RandomSampler(seed)
        drawn = _sample(plan, tried, sampler)
        if drawn not in before:
            return drawn
    if math.isinf(size(plan.space)):
        return drawn
    return next((one for one in every(plan.space) if one not in before), None)


def _sample(plan: StudyPlan, tried: Sequence[Tried], sampler: BaseSampler) -> Configuration:
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: one.distribution() for name, one in plan.space.items()}
    memory.add_trials(
        [
            create_trial(
                state=STATES[one.end],
                value=one.value,
                params=one.configuration,
                distributions=distributions,
                # What diverged counts as worse than all that was stopped, however far it came.
                intermediate_values={} if one.end == "diverged" else one.values,
            )
            for one in tried
        ]
    )
    found = memory.ask(distributions).params
    return {name: one.rounded(found[name]) for name, one in plan.space.items()}

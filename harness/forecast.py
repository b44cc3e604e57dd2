"""How long trials take, learned from the durations of those stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from statistics import fmean
from typing import Final, final

from harness.spec import Trial
from harness.store import Store

LOOKED_AT: Final = 500
"""Stored trials that a forecast reads at most; more would not make it better."""


@final
class Forecast:
    """Mean seconds of trials like this one: the same group, or method and tasks, or protocol."""

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)

    @classmethod
    def from_store(cls, store: Store, trial_ids: Iterable[str]) -> Forecast:
        """Learn from those of `trial_ids` that are stored."""
        forecast = cls()
        stored = store.stored()
        looked_at = islice((i for i in trial_ids if i in stored), LOOKED_AT)
        for document in store.manifests(looked_at).values():
            spec = document["spec"]
            keys = _keys(
                document["group"],
                spec["method"]["name"],
                spec["dataset"]["name"],
                str(spec["num_tasks"]),
                document["protocol_name"],
            )
            forecast._add(keys, document["seconds"])
        return forecast

    def learn(self, trial: Trial, seconds: float) -> None:
        """Take in a trial that has just ended."""
        self._add(_trial_keys(trial), seconds)

    def seconds(self, trial: Trial) -> float | None:
        """Expected seconds, from the most similar trials known; None if there are none."""
        for key in _trial_keys(trial):
            if key in self._seconds:
                return fmean(self._seconds[key])
        return None

    def _add(self, keys: list[tuple[str, ...]], seconds: float) -> None:
        for key in keys:
            self._seconds[key].append(seconds)


def _trial_keys(trial: Trial) -> list[tuple[str, ...]]:
    spec = trial.spec
    return _keys(
        spec.group, spec.method.name, spec.dataset.name, str(spec.num_tasks), trial.protocol_name
    )


def _keys(
    group: str, method: str, dataset: str, num_tasks: str, protocol: str
) -> list[tuple[str, ...]]:
    """From the most to the least similar."""
    return [
        ("group", group),
        ("like", method, dataset, num_tasks, protocol),
        ("method", method, protocol),
        ("protocol", protocol),
        ("any",),
    ]

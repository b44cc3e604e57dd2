"""What searches tried, from the documents that they keep in a store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analysis.trial_files import StoreError
from harness.schema import SEARCHES

SEARCH_SCHEMA: Final = 1
"""The newest version of search documents that this program reads."""

MANY: Final = 8
"""Configurations that importance is computed from at least."""

_TREES: Final = 0
"""Seed of the forest that importance is computed with."""


@dataclass(frozen=True, slots=True)
class TriedOne:
    """One configuration.

    Attributes:
        end: done, stopped, diverged, failed or running.
        value: what was maximised, a fraction; None unless it is done.
        values: the value so far by tasks learned, over all seeds.
        trial_ids: what is stored of it.
        tasks: how many were learned, over all seeds.
        seconds: of training and measuring.
    """

    number: int
    configuration: Mapping[str, Any]
    end: str
    value: float | None
    values: Mapping[int, float]
    trial_ids: Sequence[str]
    tasks: int
    seconds: float
    detail: str

    @property
    def last(self) -> float | None:
        """Its value, or how it stood when it was last seen."""
        return self.value if self.value is not None else ([*self.values.values()] or [None])[-1]


@dataclass(frozen=True, slots=True)
class StudyFound:
    """One study of a search: a method on a data set.

    Attributes:
        search: the search's name; `suite` that of the suite it wrote.
        tasks: of one seed.
        options: of the search, as its file has them.
        rungs: tasks, over all seeds, after which configurations may be stopped.
        space: the range of each hyperparameter: `low`, `high`, `log`, or `values`.
        default: the method's own settings, if they lie in the space.
        configurations: how many were wanted.
        trainings: spent, in trainings of one seed over all tasks.
    """

    search: str
    suite: str
    name: str
    method: str
    label: str
    cell: str
    tasks: int
    options: Mapping[str, Any]
    rungs: Sequence[int]
    space: Mapping[str, Mapping[str, Any]]
    default: Mapping[str, Any] | None
    configurations: int
    tried: Sequence[TriedOne]
    best: int | None
    trainings: float
    hours: float

    @property
    def metric(self) -> str:
        return str(self.options["metric"])

    @property
    def chosen(self) -> TriedOne | None:
        """The configuration that was chosen."""
        return None if self.best is None else self.tried[self.best]

    @property
    def own(self) -> TriedOne | None:
        """The configuration with the method's own settings, if it was tried."""
        return next((one for one in self.tried if one.configuration == self.default), None)

    @property
    def full(self) -> float:
        """Trainings that all that was tried would have taken to its end."""
        return len(self.tried) * len(self.options["seeds"])

    def steps(self) -> list[int]:
        """Tasks after which configurations were looked at, and the last."""
        return [*self.rungs, self.tasks * len(self.options["seeds"])]


def studies(root: Path) -> list[StudyFound]:
    """The studies of all searches of a store, by search and in their order.

    Raises:
        StoreError: if a document cannot be read, or is of a newer version.
    """
    paths = sorted(p for p in (root / SEARCHES).glob("*.json") if not p.name.startswith("."))
    return [study for path in paths for study in _studies(path)]


def searched(found: Sequence[StudyFound]) -> set[str]:
    """Ids of the trials that belong to searches."""
    return {trial_id for study in found for one in study.tried for trial_id in one.trial_ids}


def importance(study: StudyFound) -> tuple[dict[str, float], int, int] | None:
    """How much of the variance of the value each hyperparameter explains.

    By fANOVA (Hutter et al., 2014) over the configurations that came furthest: the most tasks that
    at least `MANY` of them learned.

    Returns:
        Shares by name, most first; the tasks; the number of configurations. None if there are too
        few of them, or all have the same value.
    """
    for step in reversed(study.steps()):
        reached = [one for one in study.tried if step in one.values]
        if len(reached) >= MANY:
            break
    else:
        return None
    values = [one.values[step] for one in reached]
    if max(values) == min(values):
        return None
    import optuna  # half a second that other reports are spared
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.trial import create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {name: _distribution(one) for name, one in study.space.items()}
    memory = optuna.create_study(direction="maximize")
    memory.add_trials(
        [
            create_trial(value=value, params=dict(one.configuration), distributions=dict(kinds))
            for one, value in zip(reached, values, strict=True)
        ]
    )
    shares = optuna.importance.get_param_importances(
        memory, evaluator=FanovaImportanceEvaluator(seed=_TREES)
    )
    if any(math.isnan(share) for share in shares.values()):
        return None
    return {name: float(share) for name, share in shares.items()}, step, len(reached)


def _distribution(kind: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of Optuna's
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in kind:
        return CategoricalDistribution(kind["values"])
    made = IntDistribution if kind["whole"] else FloatDistribution
    return made(kind["low"], kind["high"], log=kind["log"])


def _studies(path: Path) -> list[StudyFound]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error})") from error
    version = held.get("schema") if isinstance(held, dict) else None
    if not isinstance(version, int) or version > SEARCH_SCHEMA:
        raise StoreError(f"{path}: schema {version}, and this program reads up to {SEARCH_SCHEMA}")
    try:
        return [
            StudyFound(
                search=held["search"],
                suite=held["suite"],
                tried=[_tried(one) for one in study["tried"]],
                **{key: study[key] for key in _SAME},
            )
            for study in held["studies"]
        ]
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged: {error}") from None


_SAME: Final = (
    *("name", "method", "label", "cell", "tasks", "options", "rungs", "space", "default"),
    *("configurations", "best", "trainings", "hours"),
)


def _tried(held: Mapping[str, Any]) -> TriedOne:
    rest: dict[str, Any] = {key: value for key, value in held.items() if key != "values"}
    values = {int(step): float(value) for step, value in held["values"].items()}
    return TriedOne(values=dict(sorted(values.items())), **rest)

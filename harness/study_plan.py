"""What one study searches: a method on one data set, the space, and how; all checked beforehand.

Its trials are made by the code that makes those of suites, so that the suite that a search writes
has trials of the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from harness import plugins, protocol
from harness.config import fields
from harness.errors import UserError, unknown
from harness.grid import expand
from harness.space import Configuration, Space, Value, corners, grid, size
from harness.spec import ProtocolSettings, Trial, TrialSpec
from harness.suite import Entry, suite_of

VALIDATION: Final = 0.1
"""Share of the training images that is validated on where the protocol keeps none for that; the
share of CLA's search (CoLLAs 2025)."""

_FIXED: Final = frozenset(
    {"validation", "split", "evaluators", "primary", "class_order", "records", "hides"}
)
"""Protocol settings that say what is measured: a search must not choose among them."""


class UnsuitableError(UserError):
    """The method cannot be run under the protocol at all: a suite would leave it out."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may spend before it starts no further configuration.

    `trainings`: of one seed over all tasks, to which trials that were stopped add their share of
    tasks; `hours`: of training and measuring, of all trials together.
    """

    trainings: float | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name in ("trainings", "hours"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"budget: {name} must be above 0, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How a space is searched.

    Attributes:
        trials: configurations to try, failed ones included.
        seeds: of each configuration, one after the other; its value is their mean.
        test_seeds: of the suite that is written; none of them may be one of `seeds`.
        algorithm: tpe (Optuna's), random, or grid.
        scheduler: asha stops configurations after a task; none runs all to their end.
        eta: of asha: one configuration in so many goes on at a rung.
        grace: of asha: the tasks before the first rung; the next ones are `eta` times further.
        metric: what is maximised, CA or FA on the validation share.
        first_tasks: search on the first so many tasks alone; None: on all.
        budget: stops the search early.
        max_concurrent: configurations at once at most; None: as many as fit.
        search_seed: of everything that is drawn to choose configurations.
        try_defaults: the first configuration is that of the method's own settings, or of those that
            `set` gives, if the space has it.
    """

    trials: int = 30
    seeds: tuple[int, ...] = (100,)
    test_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    algorithm: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    eta: int = 3
    grace: int = 1
    metric: Literal["CA", "FA"] = "FA"
    first_tasks: int | None = None
    budget: Budget = field(default_factory=Budget)
    max_concurrent: int | None = None
    search_seed: int = 0
    try_defaults: bool = True

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("eta", 2), ("grace", 1), ("max_concurrent", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: must be at least {least}, got {value}")
        for name in ("seeds", "test_seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name}: at least one is needed")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: one is listed twice: {list(values)}")
        both = sorted(set(self.seeds) & set(self.test_seeds))
        if both:
            raise ValueError(
                f"seeds: {both[0]} is one of test_seeds too; settings chosen on a seed must not "
                "be tested on it"
            )


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """One study.

    Attributes:
        method: with the settings that are the same for all configurations.
        scene: where it learns, as keys of a suite's grid.
        forced: protocol settings of the search's own trials.
        default: the method's own settings, if they lie in the space.
        path: the file that asks for it.
        suite: the name of the suite that will be written, under which its trials are stored.
        spec: the method's trial without a search, of the first seed.
        cell: data set and tasks in short: `digits/5`.
    """

    method: Entry
    scene: Mapping[str, Any]
    space: Space
    options: SearchOptions
    forced: Mapping[str, Any]
    default: Configuration | None
    path: Path
    suite: str
    spec: TrialSpec
    cell: str

    @property
    def name(self) -> str:
        """Tells it from the other studies of its search: `er digits/5`."""
        return f"{self.method.label} {self.cell}"

    @property
    def configurations(self) -> int:
        """How many will be tried, unless the budget ends first."""
        return int(min(self.options.trials, size_of(self)))

    @property
    def tasks(self) -> int:
        """Tasks of one seed."""
        return self.spec.tasks_learned

    def validation_grid(self, configuration: Configuration) -> dict[str, Any]:
        """The grid of a configuration's own trials, as a suite file writes it."""
        chosen = self._entry(configuration, self.forced)
        first = self.options.first_tasks
        return {
            **self.scene,
            **({} if first is None else {"first_tasks": first}),
            "methods": [chosen],
            "seeds": list(self.options.seeds),
            "set": dict(self.forced),
        }

    def test_grid(self, configuration: Configuration) -> dict[str, Any]:
        """The grid that tests a configuration on fresh seeds, with the protocol's own settings."""
        chosen = self._entry(configuration, {})
        return {**self.scene, "methods": [chosen], "seeds": list(self.options.test_seeds)}

    def trials(self, configuration: Configuration) -> list[Trial]:
        """A configuration's trials, a seed each.

        Raises:
            UserError: if its settings do not fit the method.
        """
        return _expanded(self.validation_grid(configuration), self.path, self.suite)

    def _entry(self, configuration: Configuration, without: Mapping[str, Any]) -> dict[str, Any]:
        own = {
            key: value
            for key, value in self.method.set.items()
            if key not in self.space and key not in without
        }
        name, label = self.method.name, self.method.label
        return {"name": name, "label": label, "set": {**own, **configuration}}


def size_of(plan: StudyPlan) -> float:
    """How many configurations the space of a study has, for its algorithm."""
    if plan.options.algorithm == "grid":
        return len(grid(plan.space, where=f"{plan.path}: space"))
    return size(plan.space)


def plan_study(
    method: Entry,
    scene: Mapping[str, Any],
    space: Space,
    options: SearchOptions,
    *,
    path: Path,
    suite: str,
) -> StudyPlan:
    """Check everything about a study that can be checked without running it.

    Args:
        method: the method, and what is set of it and the protocol.
        scene: keys of a suite's grid, for one data set, number of tasks and distribution.
        space: what varies.
        options: how it is searched.
        path: the file that asks for it.
        suite: the name of the suite that will be written.

    Raises:
        UserError: for a hyperparameter that the method does not have or that must not be searched,
            a value that it refuses, a metric that is not measured.
    """
    where = f"{path}: space"
    check_names(space, method.name, where=where)
    for name in space.keys() & _FIXED:
        raise UserError(f"{where}: {name} says what is measured, and cannot be searched")
    if options.algorithm == "grid":
        grid(space, where=where)
    entry = {"name": method.name, "label": method.label, "set": dict(method.set)}
    first = {} if options.first_tasks is None else {"first_tasks": options.first_tasks}
    raw = {**scene, **first, "methods": [entry], "seeds": [options.seeds[0]]}
    trial = _expanded(raw, path, suite)[0]
    _check_metric(trial.spec, options, path)
    own = {name: _value(trial.spec, name) for name in space}
    inside = all(one.contains(own[name]) for name, one in space.items())
    plan = StudyPlan(
        method,
        scene,
        space,
        options,
        _forced(trial.spec),
        own if inside else None,
        path,
        suite,
        trial.spec,
        trial.cell,
    )
    for name, value in corners(space):
        try:
            plan.trials({**{k: v for k, v in own.items() if k != name}, name: value})
        except UserError as error:
            raise UserError(f"{where}: {name}: {value} does not fit: {error}") from None
    return plan


def check_names(
    names: Mapping[str, Any], method: str, *, where: str, meant: frozenset[str] = frozenset()
) -> None:
    """Each must be a setting of the method or of the protocol.

    Args:
        names: what to check.
        method: the method's name.
        where: for messages.
        meant: what else somebody may have meant, for the message.

    Raises:
        UserError: naming the nearest one.
    """
    known = fields(plugins.find("method", method, where=where).config) | fields(ProtocolSettings)
    for name in names:
        head, dot, _ = name.partition(".")
        if name not in known and not (dot and head in protocol.PARTS):
            where = f"{where}: method {method}"
            raise unknown("hyperparameter", name, known | meant, where=where)


def _expanded(keys: Mapping[str, Any], path: Path, suite: str) -> list[Trial]:
    trials, skips = expand(suite_of(keys, path, name=suite))
    if skips:
        raise UnsuitableError(f"{path}: {skips[0].reason}")
    return trials


def _check_metric(spec: TrialSpec, options: SearchOptions, path: Path) -> None:
    metric, primary = options.metric, spec.protocol["primary"]
    if not protocol.measures_tasks(spec):
        raise UserError(
            f"{path}: metric: {metric} is not measured: the primary evaluator, {primary}, does "
            "not measure the accuracy on each task"
        )
    if metric == "CA" and not protocol.measured_early(spec):
        raise UserError(
            f"{path}: metric: CA is not measured: {spec.method.name} can be measured after the "
            "last task alone with these settings; FA is"
        )


def _forced(spec: TrialSpec) -> dict[str, Any]:
    """Accuracies on the validation share alone, and what they cost: no test image is looked at."""
    uses = [use for use in spec.protocol["evaluators"] if use["name"] == spec.protocol["primary"]]
    return {
        "split": "validation",
        "validation": spec.protocol["validation"] or VALIDATION,
        "evaluators": [*({**use, "when": "each"} for use in uses), "cost"],
        "records": [],
    }


def _value(spec: TrialSpec, name: str) -> Value:
    """The value that a setting has without a search."""
    head, dot, tail = name.partition(".")
    if dot and head in protocol.PARTS:
        return spec.protocol[head].get(tail)
    return spec.method.settings.get(name, spec.protocol.get(name))

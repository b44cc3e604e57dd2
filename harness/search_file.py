"""Search files, and searches over all methods of a suite: from YAML to studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from harness import plugins, protocol
from harness.config import CONFIGS, fields, mapping, plain, read_yaml, settings
from harness.errors import UserError, unknown
from harness.grid import expand
from harness.space import read_space
from harness.spec import ProtocolSettings, Resources
from harness.study_plan import (
    Budget,
    SearchOptions,
    StudyPlan,
    UnsuitableError,
    check_names,
    plan_study,
)
from harness.suite import Entry, Grid, Suite, load_suite, parse_assignments

FOLDER: Final = CONFIGS / "search"

_NESTED: Final = {"budget": Budget, "resources": Resources}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchKeys(SearchOptions):
    """The keys of a search file; those of `SearchOptions` and where to search."""

    method: str
    protocol: str
    dataset: str | dict[str, Any]
    num_tasks: int
    space: dict[str, dict[str, Any]]
    distribution: Literal["regular", "irregular", "domains"] = "regular"
    class_order: Literal["seeded", "natural", "pycil1993"] | tuple[int, ...] | None = None
    set: dict[str, Any] = field(default_factory=dict[str, Any])
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True)
class Search:
    """The studies that one command runs, each with the same options.

    Attributes:
        name: of the file; what the search writes is named after it.
        data_root: where data sets live, if the file or the command line says so.
    """

    name: str
    path: Path
    plans: tuple[StudyPlan, ...]
    options: SearchOptions
    data_root: str | None

    @property
    def suite(self) -> str:
        """The name of the suite that it writes."""
        return suite_name(self.name)


def suite_name(search: str) -> str:
    """What the suite of tuned settings is called."""
    return f"{search}_tuned"


def read_search(path: Path, assignments: Sequence[str] = ()) -> Search:
    """The search that a file asks for.

    Args:
        path: the file.
        assignments: `key=value`: keys of the file in place of its own, other settings for its
            `set`.

    Raises:
        UserError: for anything in the file or the assignments that does not fit.
    """
    raw = read_yaml(path)
    if raw.pop("name", path.stem) != path.stem:
        raise UserError(f"{path}: name: a search is named after its file, {path.stem!r}")
    assigned = parse_assignments(assignments)
    root = assigned.pop("data_root", raw.pop("data_root", None))
    raw |= {key: value for key, value in assigned.items() if key in fields(SearchKeys)}
    keys = _checked(SearchKeys, raw, path)
    more = {key: value for key, value in assigned.items() if key not in fields(SearchKeys)}
    chosen = {**keys.set, **more}
    space = read_space(keys.space, where=f"{path}: space")
    check_names(chosen, keys.method, where=f"{path}: set", meant=fields(SearchKeys))
    scene: dict[str, Any] = {
        "protocol": keys.protocol,
        "datasets": [keys.dataset],
        "num_tasks": [keys.num_tasks],
        "distribution": [keys.distribution],
        **({} if keys.class_order is None else {"class_order": plain(keys)["class_order"]}),
        "resources": plain(keys.resources),
    }
    options = SearchOptions(**{name: getattr(keys, name) for name in fields(SearchOptions)})
    method = Entry(keys.method, keys.method, chosen)
    suite = suite_name(path.stem)
    plan = plan_study(method, scene, space, options, path=path, suite=suite)
    return Search(path.stem, path, (plan,), options, root)


def search_suite(path: Path, assignments: Sequence[str] = ()) -> Search:
    """The search over every method of a suite, with equal budgets.

    Each method entry is searched on each data set, with the first number of tasks and the first
    distribution of its grid, over the space of `configs/search/<method>.yaml`, in which an assigned
    `space` replaces what it names. The suite's seeds are those of the test, the search's follow.

    Args:
        path: the suite.
        assignments: `key=value`: options of the search, or whatever `run --set` takes.

    Raises:
        UserError: for anything that does not fit, such as a method without a search file.
    """
    mine, others = _divided(assignments)
    suite = load_suite(path, others)
    seeds = [seed for grid in suite.grids for seed in grid.keys.seeds]
    ranges = mapping(mine.pop("space", None), where="--set space")
    raw = {"test_seeds": list(dict.fromkeys(seeds)), "seeds": [max(seeds) + 1], **mine}
    options = _checked(SearchOptions, raw, path)
    expand(suite)  # what does not fit the suite is said as `run` says it
    plans: dict[str, StudyPlan] = {}
    for grid in suite.grids:
        own = replace(options, test_seeds=tuple(dict.fromkeys(grid.keys.seeds)))
        for method in grid.methods:
            for dataset in grid.datasets:
                with suppress(UnsuitableError):  # the suite leaves it out as well
                    _join(plans, _of_suite(suite, grid, method, dataset, own, ranges))
    return Search(suite.name, path, tuple(plans.values()), options, suite.data_root)


def _join(plans: dict[str, StudyPlan], plan: StudyPlan) -> None:
    """Take in a study, under a name of its own; once if two grids ask for the same."""
    if plan.name in plans and plans[plan.name].scene["protocol"] != plan.scene["protocol"]:
        plan = replace(plan, cell=f"{plan.cell} {plan.scene['protocol']}")
    known = plans.setdefault(plan.name, plan)
    if known.spec != plan.spec:
        raise UserError(
            f"{plan.path}: two grids have {plan.name} with different settings; give one of them "
            "another label"
        )


def _divided(assignments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Assignments that are options of a search, and those that are the suite's."""
    options = fields(SearchOptions) - {"test_seeds"} | {"space"}
    mine: dict[str, Any] = {}
    others: list[str] = []
    for text in assignments:
        found = parse_assignments([text])
        if found.keys() <= options:
            mine |= found
        else:
            others.append(text)
    return mine, others


def _of_suite(
    suite: Suite,
    grid: Grid,
    method: Entry,
    dataset: Entry,
    options: SearchOptions,
    ranges: Mapping[str, Any],
) -> StudyPlan:
    file = FOLDER / f"{method.name}.yaml"
    if not file.exists():
        raise UserError(f"{suite.path}: method {method.name}: no {file} that says its space")
    known = fields(plugins.find("method", method.name, where=grid.where).config)
    own = mapping(read_yaml(file).get("space"), where=f"{file}: space")
    over = {name: value for name, value in ranges.items() if _applies(name, known)}
    space = read_space({**own, **over}, where=f"{file}: space")
    keys = plain(grid.keys)
    scene: dict[str, Any] = {
        "protocol": grid.keys.protocol,
        "datasets": [_with_set(dataset, _named(grid, suite, dataset))],
        "num_tasks": [grid.keys.num_tasks[0]],
        "distribution": [grid.keys.distribution[0]],
        **{key: keys[key] for key in ("class_order", "first_tasks") if keys[key] is not None},
        "resources": keys["resources"],
    }
    entry = Entry(method.name, method.label, _settings_of(suite, grid, method))
    name = suite_name(suite.name)
    return plan_study(entry, scene, space, options, path=suite.path, suite=name)


def _with_set(dataset: Entry, named: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    below, above = named
    values = {**below, **dataset.set, **above}
    return {"name": dataset.name, "label": dataset.label, "set": values}


def _named(grid: Grid, suite: Suite, entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the grid's `set` and what `--set` give under the name or label of an entry."""
    below, above = ({}, {})
    for values, found in ((grid.keys.set, below), (suite.overrides, above)):
        for head in dict.fromkeys((entry.name, entry.label)):
            found |= {
                key.removeprefix(f"{head}."): value
                for key, value in values.items()
                if key.startswith(f"{head}.")
            }
    return below, above


def _settings_of(suite: Suite, grid: Grid, method: Entry) -> dict[str, Any]:
    """All that a suite sets of a method and of the protocol for it, by the order of precedence."""
    below, above = _named(grid, suite, method)
    known = fields(plugins.find("method", method.name, where=grid.where).config)

    def bare(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if _applies(key, known)}

    layers = [bare(grid.keys.set), below, method.set, bare(suite.overrides), above]
    return protocol.merge(layers)


def _applies(key: str, known: frozenset[str]) -> bool:
    head, dot, _ = key.partition(".")
    return key in fields(ProtocolSettings) or key in known or bool(dot and head in protocol.PARTS)


def _checked(cls: type[Any], raw: Mapping[str, Any], path: Path) -> Any:  # noqa: ANN401
    """`settings`, with the names of nested keys checked too."""
    for key, nested in _NESTED.items():
        if isinstance(raw.get(key), dict) and key in fields(cls):
            settings(nested, raw[key], where=f"{path}: {key}")
    for key in raw:
        if key not in fields(cls):
            raise unknown("key", key, fields(cls), where=str(path))
    return settings(cls, raw, where=str(path))

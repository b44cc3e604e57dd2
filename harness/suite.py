"""A suite file: the grids of trials that one command runs, after `--set` and `--only`.

This module reads and checks the file; `harness.grid` multiplies it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from harness.config import fields, mapping, parse_yaml, read_yaml, settings
from harness.errors import UserError, unknown
from harness.spec import Resources

ONLY_KEYS: Final = ("method", "label", "dataset", "num_tasks", "distribution", "seed")

_LISTS: Final = ("methods", "datasets", "num_tasks", "distribution")


@dataclass(frozen=True, slots=True)
class Entry:
    """A method or data set of a grid: its name, the label it goes under, its own settings."""

    name: str
    label: str
    set: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class GridKeys:
    """The keys of a grid, as a suite file writes them."""

    protocol: str
    methods: tuple[str | dict[str, Any], ...]
    datasets: tuple[str | dict[str, Any], ...]
    num_tasks: tuple[int, ...]
    seeds: tuple[int, ...]
    distribution: tuple[Literal["regular", "irregular", "domains"], ...] = ("regular",)
    class_order: Literal["seeded", "natural", "pycil1993"] | tuple[int, ...] | None = None
    first_tasks: int | None = None
    set: dict[str, Any] = field(default_factory=dict[str, Any])
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        for key in ("methods", "datasets", "num_tasks", "seeds", "distribution"):
            if not getattr(self, key):
                raise ValueError(f"{key}: at least one is needed")
        for count in self.num_tasks:
            if count < 1:
                raise ValueError(f"num_tasks: must be at least 1, got {count}")
            if self.first_tasks is not None and not 1 <= self.first_tasks <= count:
                raise ValueError(
                    f"first_tasks: must be from 1 to num_tasks ({count}), got {self.first_tasks}"
                )
        for seed in self.seeds:
            if not 0 <= seed < 2**63:
                raise ValueError(f"seeds: must be from 0 to below 2**63, got {seed}")


_LIFTED: Final = fields(GridKeys) - {"set", "class_order"}
"""Keys that `set` and `--set` put in the place of the file's own. A class order in `set` is a
protocol setting, which wins over the suite's and over those of entries."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One product of methods, data sets, task counts, distributions and seeds."""

    keys: GridKeys
    methods: tuple[Entry, ...]
    datasets: tuple[Entry, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite file with the command line's `--set` (all keys but the grids' own) applied.

    Attributes:
        overrides: what `--set` gives for protocols, methods and data sets; it wins over all else.
        shared: the file's top-level `set`: each of its keys must find a use in some grid.
        data_root: where data sets live, if the suite or `--set` says so.
        metrics: the columns of its tables, one list a table, if the suite or `--set` says so.
        search: what the search that wrote the file says of itself; changes nothing.
    """

    name: str
    path: Path
    grids: tuple[Grid, ...]
    overrides: Mapping[str, Any]
    shared: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data_root: str | None = None
    metrics: tuple[tuple[str, ...], ...] = ()
    search: Mapping[str, Any] = field(default_factory=dict[str, Any])


def load_suite(path: Path, assignments: Sequence[str] = ()) -> Suite:
    """Read a suite file and apply the `key=value` assignments of `--set`.

    Raises:
        UserError: for anything in the file or the assignments that does not fit.
    """
    return suite_of(read_yaml(path), path, assignments)


def suite_of(
    raw: Mapping[str, Any], path: Path, assignments: Sequence[str] = (), *, name: str | None = None
) -> Suite:
    """The suite that a file's content describes.

    Args:
        raw: the content.
        path: the file, for messages.
        assignments: `key=value`, as of `--set`.
        name: what the suite is called, if not by its file.

    Raises:
        UserError: for anything in the content or the assignments that does not fit.
    """
    raw = dict(raw)
    assigned = parse_assignments(assignments)
    name = name or path.stem
    given = raw.pop("name", name)
    if given != name:
        raise UserError(f"{path}: name: a suite is named after its file, {name!r}: {given!r}")
    search = mapping(raw.pop("search", None), where=f"{path}: search")
    root = assigned.pop("data_root", raw.pop("data_root", None))
    if not isinstance(root, str | None):
        raise UserError(f"{path}: data_root: expected a folder, got {root!r}")
    metrics = _metrics(assigned.pop("metrics", raw.pop("metrics", [])), path)
    for_grids = {key: value for key, value in assigned.items() if key in _LIFTED}
    overrides = {key: value for key, value in assigned.items() if key not in _LIFTED}
    raw = _lift(raw)
    raws = [{**grid, **for_grids} for grid in _inherit(raw, path)]
    several = len(raws) > 1
    grids = [
        _grid(grid, where=f"{path}, grid {i + 1}" if several else str(path))
        for i, grid in enumerate(raws)
    ]
    top = raw.get("set")
    shared = top if isinstance(top, dict) else {}
    return Suite(name, path, tuple(grids), overrides, shared, root, metrics, search)


def _metrics(value: object, path: Path) -> tuple[tuple[str, ...], ...]:
    """The columns of each table: a list of names is one table, a list of such lists several."""
    tables: list[Any] = value if isinstance(value, list) else [value]
    if tables and all(isinstance(name, str) for name in tables):
        tables = [tables]
    for names in tables:
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise UserError(f"{path}: metrics: expected a list of names, got {value!r}")
    return tuple(tuple(map(str, names)) for names in tables)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["epochs=1", "seeds=[0,1]"]` as a mapping; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {text}: expected KEY=VALUE, such as epochs=1")
        parsed[key.strip()] = parse_yaml(value, where=f"--set {text}")
    return parsed


def parse_only(filters: Sequence[str]) -> dict[str, frozenset[str]]:
    """`["method=er,joint", "seed=0"]` as the wanted values of each key, as text."""
    wanted: dict[str, frozenset[str]] = {}
    for text in filters:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or not values.strip():
            raise UserError(f"--only {text}: expected KEY=V1,V2, such as method=er,joint")
        if key not in ONLY_KEYS:
            raise unknown("key", key, ONLY_KEYS, where=f"--only {text}")
        chosen = frozenset(value.strip() for value in values.split(","))
        wanted[key] = wanted.get(key, frozenset()) | chosen
    return wanted


def _lift(level: dict[str, Any]) -> dict[str, Any]:
    """A level of the file with the suite keys of its `set` in their own place."""
    inner = level.get("set")
    if not isinstance(inner, dict):
        return level
    lifted = {key: value for key, value in inner.items() if key in _LIFTED}
    rest = {key: value for key, value in inner.items() if key not in _LIFTED}
    return {**level, **lifted, "set": rest}


def _inherit(raw: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The grids of a file, each with what stands at its top level."""
    grids = raw.pop("grids", [{}])
    if not isinstance(grids, list) or not grids or not all(isinstance(g, dict) for g in grids):
        raise UserError(f"{path}: grids: expected a list of mappings")
    merged: list[dict[str, Any]] = []
    for grid in map(_lift, grids):
        both = {**raw, **grid}
        if isinstance(raw.get("set"), dict) and isinstance(grid.get("set"), dict):
            both["set"] = {**raw["set"], **grid["set"]}
        merged.append(both)
    return merged


def _grid(raw: Mapping[str, Any], *, where: str) -> Grid:
    values = {key: _as_list(value) if key in _LISTS else value for key, value in raw.items()}
    missing = {"protocol", "methods", "datasets", "num_tasks", "seeds"} - set(values)
    if missing:
        raise UserError(f"{where}: missing key{'s' * (len(missing) > 1)} {_words(missing)}")
    resources: Any = values.get("resources")
    if isinstance(resources, dict):  # pydantic alone would pass over keys it does not know
        settings(Resources, resources, where=f"{where}: resources")
    keys = settings(GridKeys, values, where=where)
    methods = tuple(_entry(value, where=f"{where}: methods") for value in keys.methods)
    datasets = tuple(_entry(value, where=f"{where}: datasets") for value in keys.datasets)
    return Grid(keys, methods, datasets, where)


def _entry(value: str | dict[str, Any], *, where: str) -> Entry:
    if isinstance(value, str):
        return Entry(value, value)
    for key in value:
        if key not in fields(Entry):
            raise unknown("key", key, fields(Entry), where=where)
    if "name" not in value:
        raise UserError(f"{where}: an entry needs a name: {value}")
    return settings(Entry, {"label": value["name"], **value}, where=where)


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _words(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))

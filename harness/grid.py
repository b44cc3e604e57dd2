"""Multiply a suite out into trials, with every setting resolved.

Precedence, later wins. A method's settings: dataclass default, method YAML, its block for the data
set, the suite's `set`, the entry's `set`, `--set`. Protocol settings: protocol YAML, the method
YAML's `protocol`, that of its block for the data set, the suite's `set`, the entry's `set`,
`--set`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness import plugins, protocol
from harness.config import CONFIGS, fields, mapping, read_yaml
from harness.data.entries import dataset_component, dataset_entry
from harness.data.scenarios import check_domains, class_order, task_sizes
from harness.errors import UserError, unknown
from harness.spec import Component, ProtocolSettings, Trial, TrialSpec
from harness.suite import Entry, Grid, GridKeys, Suite


@dataclass(frozen=True, slots=True)
class Skip:
    """A combination that cannot be run, and why."""

    title: str
    reason: str


@dataclass(slots=True)
class _Overrides:
    """The keys of one `set`, asked for by what they concern; notes which ones found a use."""

    values: Mapping[str, Any]
    used: set[str] = field(default_factory=set[str])

    def for_protocol(self, entry: Entry) -> dict[str, Any]:
        """Protocol settings of one method, with `backbone.width` and the like under their part."""
        chosen: dict[str, Any] = {}
        for key, name, value in self._named(entry):
            head, dot, tail = name.partition(".")
            if name in fields(ProtocolSettings):
                chosen = protocol.merge([chosen, {name: value}])
            elif dot and head in protocol.PARTS:
                before = chosen.get(head, {})
                named = {"name": before} if isinstance(before, str) else before
                chosen[head] = {**named, tail: value}
            else:
                continue
            self.used.add(key)
        return chosen

    def for_method(self, entry: Entry, known: frozenset[str]) -> dict[str, Any]:
        """A method's own settings: what stands under its name or label, or it has by name."""
        chosen: dict[str, Any] = {}
        for key, name, value in self._named(entry):
            if not _of_protocol(name) and (key != name or name in known):
                chosen[name] = value
                self.used.add(key)
        return chosen

    def for_dataset(self, entry: Entry) -> dict[str, Any]:
        """A data set's settings, which always stand under its name or label."""
        named = [(key, name, value) for key, name, value in self._named(entry) if key != name]
        self.used |= {key for key, _, _ in named}
        return {name: value for _, name, value in named}

    def _named(self, entry: Entry) -> list[tuple[str, str, Any]]:
        """Key, key without the name of `entry` before it, value: bare ones, name's, label's."""
        levels: dict[str | None, list[tuple[str, str, Any]]] = {None: [], entry.name: []}
        levels.setdefault(entry.label, [])
        for key, value in self.values.items():
            head, dot, tail = key.partition(".")
            if dot and head in levels:
                levels[head].append((key, tail, value))
            else:
                levels[None].append((key, key, value))
        return list(itertools.chain.from_iterable(levels.values()))

    def check_used(self, entries: Iterable[Entry], where: str) -> None:
        """Every key must have found something that has it."""
        unused = sorted(set(self.values) - self.used)
        if not unused:
            return
        known = {*fields(ProtocolSettings), *fields(GridKeys)}
        for entry in entries:
            config = plugins.find("method", entry.name, where=where).config
            known |= fields(config) | {f"{entry.label}.{name}" for name in fields(config)}
        raise unknown("setting", unused[0], known, where=where)


def _of_protocol(name: str) -> bool:
    """Whether a setting is the protocol's, or that of one of its parts."""
    head, dot, _ = name.partition(".")
    return name in fields(ProtocolSettings) or bool(dot and head in protocol.PARTS)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Settings from one level of a method's YAML: its own and the protocol's."""

    own: Mapping[str, Any]
    training: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One method on one data set of a grid: applies the precedence of settings."""

    grid: Grid
    method: Entry
    dataset: Entry
    own: _Overrides
    assigned: _Overrides

    def method_component(self) -> Component:
        config = plugins.find("method", self.method.name, where=self.grid.where).config
        known = fields(config)
        general, special = self._files()
        values = {
            **general.own,
            **special.own,
            **self.own.for_method(self.method, known),
            **{key: value for key, value in self.method.set.items() if not _of_protocol(key)},
            **self.assigned.for_method(self.method, known),
        }
        return plugins.component("method", self.method.name, values, where=self.grid.where)

    def dataset_component(self) -> Component:
        values = {
            **self.own.for_dataset(self.dataset),
            **self.dataset.set,
            **self.assigned.for_dataset(self.dataset),
        }
        return dataset_component(self.dataset.name, values, where=self.grid.where)

    def protocol_settings(self) -> dict[str, Any]:
        general, special = self._files()
        keys = self.grid.keys
        order = keys.class_order
        in_suite = {} if order is None else {"class_order": order}
        layers = [
            protocol.protocol_file(keys.protocol, where=self.grid.where),
            general.training,
            special.training,
            in_suite,
            self.own.for_protocol(self.method),
            _Overrides(self.method.set).for_protocol(self.method),
            self.assigned.for_protocol(self.method),
        ]
        return protocol.resolve(protocol.merge(layers), where=self.grid.where)

    def _files(self) -> tuple[_Layer, _Layer]:
        """The method's YAML and its block for this data set."""
        path = CONFIGS / "method" / f"{self.method.name}.yaml"
        raw = read_yaml(path) if path.exists() else {}
        blocks = mapping(raw.pop("datasets", None), where=f"{path}: datasets")
        special = blocks.get(self.dataset.name)
        where = f"{path}: datasets: {self.dataset.name}"
        return self._layer(raw, str(path)), self._layer(mapping(special, where=where), where)

    def _layer(self, raw: dict[str, Any], where: str) -> _Layer:
        """One level of a method's YAML, its names and types checked while its file is known."""
        own = {key: value for key, value in raw.items() if key != "protocol"}
        plugins.component("method", self.method.name, own, where=where)
        training = protocol.checked_keys(raw.get("protocol"), where=f"{where}: protocol")
        return _Layer(own, training)


def expand(suite: Suite) -> tuple[list[Trial], list[Skip]]:
    """All trials of a suite in the order of the file, and the combinations left out.

    Entries that come to the same settings are one trial under several labels: it is listed under
    each of them and runs once.

    Raises:
        UserError: for a name, key or value that does not fit.
    """
    assigned, shared = _Overrides(suite.overrides), _Overrides(suite.shared)
    trials: dict[tuple[str, ...], Trial] = {}
    skips: list[Skip] = []
    for grid in suite.grids:
        own = _Overrides(grid.keys.set)
        for found in _expand_grid(suite.name, grid, own, assigned):
            if isinstance(found, Skip):
                skips.append(found)
            else:
                trials.setdefault((found.trial_id, found.label, found.dataset_label), found)
        shared.used |= own.used
        own.used |= shared.values.keys()
        own.check_used(grid.methods, f"{grid.where}: set")
    methods = [entry for grid in suite.grids for entry in grid.methods]
    shared.check_used(methods, f"{suite.path}: set")
    assigned.check_used(methods, "--set")
    return list(trials.values()), skips


def _expand_grid(
    suite: str, grid: Grid, own: _Overrides, assigned: _Overrides
) -> Iterator[Trial | Skip]:
    for dataset, method in itertools.product(grid.datasets, grid.methods):
        cell = _Cell(grid, method, dataset, own, assigned)
        learner, images, training = (
            cell.method_component(),
            cell.dataset_component(),
            cell.protocol_settings(),
        )
        keys = grid.keys
        for shape in itertools.product(keys.num_tasks, keys.distribution, keys.seeds):
            num_tasks, distribution, seed = shape
            # All of them is no setting: equal trials have equal ids.
            first = None if keys.first_tasks == num_tasks else keys.first_tasks
            spec = TrialSpec(learner, images, num_tasks, distribution, training, seed, first)
            check_scenario(spec, where=grid.where)
            protocol.check_method(spec, where=grid.where)
            named = _protocol_name(spec, keys.protocol)
            trial = Trial(spec, suite, method.label, dataset.label, named, keys.resources)
            reason = protocol.unsuitable(spec)
            yield Skip(trial.title, reason) if reason else trial


def _protocol_name(spec: TrialSpec, name: str) -> str:
    """The name in results: what was measured on other images than the test's has another."""
    split = spec.protocol["split"]
    return name if split == "test" else f"{name} ({split})"


def check_scenario(spec: TrialSpec, *, where: str) -> None:
    """The data set must train, and divide into the tasks; a listed order name each class once."""
    entry = plugins.find("data set", spec.dataset.name, where=where)
    if getattr(entry.module, "EVALUATION_ONLY", False):
        raise UserError(
            f"{where}: data set {entry.name} has no training images; evaluators measure with it "
            "(docs/data.md)"
        )
    config = dataset_entry(entry.name, spec.dataset.settings, where=where).config
    classes = entry.module.num_classes(config)
    domains = None
    if spec.distribution == "domains":
        if not hasattr(entry.module, "num_domains"):
            raise UserError(
                f"{where}: data set {entry.name} has no domains; its distribution can be regular "
                "or irregular"
            )
        domains = entry.module.num_domains(config)
    order = spec.protocol["class_order"]
    try:
        if domains is None:
            task_sizes(spec.distribution, classes, spec.num_tasks, spec.seed)
        else:
            check_domains(domains, spec.num_tasks)
        class_order(order if isinstance(order, str) else tuple(order), classes, spec.seed)
    except ValueError as error:
        raise UserError(f"{where}: data set {spec.dataset.name}: {error}") from None


def select(trials: list[Trial], only: Mapping[str, frozenset[str]]) -> list[Trial]:
    """The trials that every filter of `--only` lets through.

    Raises:
        UserError: for a value that no trial has.
    """
    for key, wanted in only.items():
        present = {value for trial in trials for value in _facets(trial)[key]}
        for value in sorted(wanted):
            if value not in present:
                raise unknown(key, value, present, where=f"--only {key}")
        trials = [trial for trial in trials if wanted & _facets(trial)[key]]
    return trials


def _facets(trial: Trial) -> dict[str, set[str]]:
    return {
        "method": {trial.spec.method.name},
        "label": {trial.label},
        "dataset": {trial.dataset_label, trial.spec.dataset.name},
        "num_tasks": {str(trial.spec.num_tasks)},
        "distribution": {trial.spec.distribution},
        "seed": {str(trial.spec.seed)},
    }

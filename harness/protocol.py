"""Protocols: how learners are trained and measured, with the settings of every plug-in resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from harness import plugins
from harness.config import CONFIGS, fields, mapping, plain, read_yaml, settings
from harness.data.entries import dataset_entry
from harness.data.scenarios import task_sizes
from harness.errors import UserError, unknown
from harness.measure import Evaluator
from harness.networks import planned_networks
from harness.spec import Component, ProtocolSettings, TrialSpec
from methods.base import Method, Planned, Signal

PARTS: Final = ("backbone", "objective", "augmentation")
"""Protocol settings that name a plug-in; `backbone.width` and the like set its settings."""

_DEFAULT_PARTS: Final = {
    field.name: field.default
    for field in dataclasses.fields(ProtocolSettings)
    if field.name in PARTS
}

_WHEN: Final = ("each", "last")


@cache
def protocol_names() -> tuple[str, ...]:
    """Every file in `configs/protocol/`."""
    return tuple(sorted(path.stem for path in (CONFIGS / "protocol").glob("*.yaml")))


def protocol_file(name: str, *, where: str) -> dict[str, Any]:
    """What `configs/protocol/<name>.yaml` says."""
    if name not in protocol_names():
        raise unknown("protocol", name, protocol_names(), where=where)
    path = CONFIGS / "protocol" / f"{name}.yaml"
    return checked_keys(read_yaml(path), where=str(path))


def checked_keys(raw: object, *, where: str) -> dict[str, Any]:
    """Protocol settings of a file whose names are known; an empty block is none at all.

    Raises:
        UserError: naming the file, which a check of all layers together could not.
    """
    block = mapping(raw, where=where)
    for key in block:
        if key not in fields(ProtocolSettings):
            raise unknown("key", key, fields(ProtocolSettings), where=where)
    return block


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win; settings of a part join an earlier layer's if it is the same part."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = merged.get(key)
            merged[key] = _join(before, value) if key in PARTS else value
    return merged


def _join(before: Any, value: Any) -> Any:  # noqa: ANN401 - a mistake of the user may be anything
    old = {"name": before} if isinstance(before, str) else before
    new = {"name": value} if isinstance(value, str) else value
    if not isinstance(old, dict) or not isinstance(new, dict):
        return value
    names = [part["name"] for part in (old, new) if "name" in part]
    return value if len(names) == 2 and names[0] != names[1] else {**old, **new}


def resolve(raw: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Check protocol settings and fill in every default, those of its plug-ins included.

    Raises:
        UserError: for an unknown key, name or value, or parts that do not go together.
    """
    raw = merge([_DEFAULT_PARTS, raw])
    checked = plain(settings(ProtocolSettings, raw, where=where))
    for part in PARTS:
        name, options = plugins.split_name(checked[part], where=f"{where}: {part}")
        found = plugins.component(part, name, options, where=where)
        checked[part] = {"name": name, **found.settings}
    uses = [_evaluator(use, where=where) for use in checked["evaluators"]]
    # Sorted, because the order of evaluators changes no number and so must not change an id.
    checked["evaluators"] = sorted(uses, key=lambda use: use["name"])
    measured = [use["name"] for use in checked["evaluators"]]
    if checked["primary"] not in measured:
        raise unknown("evaluator", checked["primary"], measured, where=f"{where}: primary")
    for name in measured:
        if measured.count(name) > 1:
            raise UserError(f"{where}: evaluators: {name} is listed twice")
        if _evaluator_class(name).needs_validation and not checked["validation"]:
            raise UserError(f"{where}: evaluator {name} needs a validation share above 0")
    return checked


def part(protocol: Mapping[str, Any], name: str) -> Component:
    """A resolved part of a resolved protocol."""
    chosen, options = plugins.split_name(protocol[name], where=name)
    return Component(chosen, options)


def is_reference(spec: TrialSpec) -> bool:
    """Whether the method sees the data of all tasks: tables show it, but do not rank it."""
    return bool(_method_class(spec).needs & {Signal.ALL_DATA, Signal.IID})


def check_method(spec: TrialSpec, *, where: str) -> None:
    """Ask the method whether it can work with these settings, and build its networks without data.

    Raises:
        UserError: if it cannot, or its networks do not suit the images or the batches.
    """
    training = settings(ProtocolSettings, spec.protocol, where=where)
    method = _method_class(spec)
    where = f"{where}: method {spec.method.name}"
    config = settings(
        plugins.find("method", spec.method.name, where=where).config,
        spec.method.settings,
        where=where,
    )
    objective = plugins.find("objective", part(spec.protocol, "objective").name, where=where)
    heads = part(spec.protocol, "objective") if method.uses_objective else None
    entry = plugins.find("data set", spec.dataset.name, where=where)
    images = dataset_entry(spec.dataset.name, spec.dataset.settings, where=where).config
    shape, classes = entry.module.image_shape(images), entry.module.num_classes(images)
    try:
        networks = planned_networks(shape, part(spec.protocol, "backbone"), heads)
        planned = Planned(
            training=training,
            objective=objective.module.build,
            backbone=networks.backbone,
            normalises_vectors=networks.normalises_vectors,
            image_shape=shape,
            num_classes=classes,
            task_classes=task_sizes(spec.distribution, classes, spec.num_tasks, spec.seed),
        )
        method.check(config, planned)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    if networks.normalises_vectors and training.batch_size == 1:
        raise UserError(
            f"{where}: batch_size: batch normalisation cannot train on 1 image; use 2 or more"
        )


def measures_tasks(spec: TrialSpec) -> bool:
    """Whether the primary evaluator measures the accuracy on each task."""
    return _evaluator_class(spec.protocol["primary"]).by_task


def measured_early(spec: TrialSpec) -> bool:
    """Whether the method can be measured after every task, and not after the last alone."""
    config = plugins.find("method", spec.method.name, where="trial").config
    return _method_class(spec).measured_early(
        settings(config, spec.method.settings, where=f"method {spec.method.name}")
    )


def unsuitable(spec: TrialSpec) -> str | None:
    """Why this method cannot be run under this protocol, or None if it can."""
    method = _method_class(spec)
    hidden = sorted(method.needs & frozenset(spec.protocol["hides"]))
    if hidden:
        return f"{spec.method.name} needs {', '.join(hidden)}, which the protocol hides"
    for use in spec.protocol["evaluators"]:
        if _evaluator_class(use["name"]).needs_predictions and not method.predicts:
            return f"{spec.method.name} has no classifier, which evaluator {use['name']} needs"
    if "predictions" in spec.protocol["records"] and not method.predicts:
        return f"{spec.method.name} has no classifier, which records of predictions need"
    return None


def _method_class(spec: TrialSpec) -> type[Method]:
    return plugins.find("method", spec.method.name, where="trial").module.build


def _evaluator(use: str | dict[str, Any], *, where: str) -> dict[str, Any]:
    name, options = plugins.split_name(use, where=f"{where}: evaluators")
    when = options.pop("when", "each")
    if when not in _WHEN:
        raise unknown("value", when, _WHEN, where=f"{where}: evaluator {name}: when")
    found = plugins.component("evaluator", name, options, where=where)
    return {"name": name, "when": when, **found.settings}


def _evaluator_class(name: str) -> type[Evaluator]:
    return plugins.find("evaluator", name, where="evaluators").module.build

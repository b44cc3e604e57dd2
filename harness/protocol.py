"""Protocols: how learners are trained and measured, with the settings of every plug-in resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from harness import plugins
from harness.config import CONFIGS, plain, read_yaml, settings
from harness.errors import UserError, unknown
from harness.measure import Evaluator
from harness.spec import Component, ProtocolSettings, TrialSpec
from methods.base import Method

PARTS: Final = ("backbone", "objective", "augmentation")
"""Protocol settings that name a plug-in; `backbone.width` and the like set its settings."""

_WHEN: Final = ("each", "last")


@cache
def protocol_names() -> tuple[str, ...]:
    """Every file in `configs/protocol/`."""
    return tuple(sorted(path.stem for path in (CONFIGS / "protocol").glob("*.yaml")))


def protocol_file(name: str, *, where: str) -> dict[str, Any]:
    """What `configs/protocol/<name>.yaml` says."""
    if name not in protocol_names():
        raise unknown("protocol", name, protocol_names(), where=where)
    return read_yaml(CONFIGS / "protocol" / f"{name}.yaml")


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win; settings of a part join an earlier layer's if it is the same part."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = merged.get(key)
            merged[key] = _join(before, value) if key in PARTS and before is not None else value
    return merged


def _join(before: str | dict[str, Any], value: str | dict[str, Any]) -> str | dict[str, Any]:
    old = {"name": before} if isinstance(before, str) else before
    new = {"name": value} if isinstance(value, str) else value
    same = new.get("name", old["name"]) == old["name"]
    return {**old, **new} if same else value


def resolve(raw: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Check protocol settings and fill in every default, those of its plug-ins included.

    Raises:
        UserError: for an unknown key, name or value, or parts that do not go together.
    """
    checked = plain(settings(ProtocolSettings, raw, where=where))
    for part in PARTS:
        name, options = plugins.split_name(checked[part], where=f"{where}: {part}")
        found = plugins.component(part, name, options, where=where)
        checked[part] = {"name": name, **found.settings}
    checked["evaluators"] = [_evaluator(use, where=where) for use in checked["evaluators"]]
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


def unsuitable(spec: TrialSpec) -> str | None:
    """Why this method cannot be run under this protocol, or None if it can."""
    method: type[Method] = plugins.find("method", spec.method.name, where="").module.build
    for use in spec.protocol["evaluators"]:
        if _evaluator_class(use["name"]).needs_predictions and not method.predicts:
            return f"{spec.method.name} has no classifier, which evaluator {use['name']} needs"
    return None


def _evaluator(use: str | dict[str, Any], *, where: str) -> dict[str, Any]:
    name, options = plugins.split_name(use, where=f"{where}: evaluators")
    when = options.pop("when", "each")
    if when not in _WHEN:
        raise unknown("value", when, _WHEN, where=f"{where}: evaluator {name}: when")
    found = plugins.component("evaluator", name, options, where=where)
    return {"name": name, "when": when, **found.settings}


def _evaluator_class(name: str) -> type[Evaluator]:
    return plugins.find("evaluator", name, where="evaluators").module.build

"""Every kind of plug-in under one roof: a folder each, a file a name, a `Config` dataclass a file.

Adding one is adding a file; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.config import plain, settings
from harness.errors import UserError, unknown
from harness.spec import Component
from methods import registry
from methods.registry import Entry, UnknownNameError

KINDS: Final = {
    "method": registry.FAMILIES,
    "backbone": registry.BACKBONES,
    "objective": registry.OBJECTIVES,
    "data set": ("harness.data.sets",),
    "augmentation": ("harness.data.augmentations",),
    "evaluator": ("harness.evaluators",),
}


def names(kind: str) -> list[str]:
    """Every name of one kind, sorted; imports none of them."""
    return registry.names(KINDS[kind])


def find(kind: str, name: str, *, where: str) -> Entry:
    """One plug-in.

    Raises:
        UserError: if there is none of that name, with the nearest one.
    """
    try:
        return registry.entry(name, KINDS[kind])
    except UnknownNameError as error:
        raise unknown(kind, name, error.known, where=where) from None


def component(kind: str, name: str, values: Mapping[str, Any], *, where: str) -> Component:
    """A plug-in with every setting: `values` over its defaults, checked."""
    config = find(kind, name, where=where).config
    return Component(name, plain(settings(config, values, where=f"{where}: {kind} {name}")))


def build(kind: str, component: Component, *args: Any) -> Any:  # noqa: ANN401 - any plug-in
    """What the plug-in's `build` makes of its typed settings and `args`.

    Raises:
        UserError: if the plug-in refuses its settings.
    """
    where = f"{kind} {component.name}"
    found = find(kind, component.name, where=where)
    config = settings(found.config, component.settings, where=where)
    try:
        return found.build(config, *args)
    except ValueError as error:
        raise UserError(str(error)) from error


def split_name(value: str | Mapping[str, Any], *, where: str) -> tuple[str, dict[str, Any]]:
    """`"mlp"` or `{"name": "mlp", "hidden": [64]}` as name and settings."""
    if isinstance(value, str):
        return value, {}
    rest = dict(value)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{where}: expected a name, or a mapping with a name, got {dict(value)}")
    return name, rest

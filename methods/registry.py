"""Find plug-ins by file name: `methods/supervised/er.py` is the method `er`.

Nothing is imported until asked for, and nothing is listed anywhere: a new file is a new name.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

FAMILIES: Final = ("methods.supervised", "methods.self_supervised")
BACKBONES: Final = ("methods.backbones",)
OBJECTIVES: Final = ("methods.objectives",)


class UnknownNameError(LookupError):
    """No plug-in has that name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown name {name!r}; known: {', '.join(known)}")
        self.name = name
        self.known = known


@dataclass(frozen=True, slots=True)
class Entry:
    """A plug-in: its module, its settings as a frozen dataclass, and what builds it."""

    name: str
    module: ModuleType

    @property
    def config(self) -> type:
        return self.module.Config

    def build(self, *args: Any) -> Any:  # noqa: ANN401 - each kind of plug-in has its own type
        return self.module.build(*args)


def where(packages: tuple[str, ...]) -> dict[str, str]:
    """Name to module path for every plug-in in `packages`, without importing any of them."""
    found: dict[str, str] = {}
    for package in packages:
        folder = importlib.import_module(package).__path__
        found |= {m.name: f"{package}.{m.name}" for m in pkgutil.iter_modules(folder)}
    return dict(sorted(found.items()))


def names(packages: tuple[str, ...] = FAMILIES) -> list[str]:
    """Every name in `packages`, sorted."""
    return list(where(packages))


def entry(name: str, packages: tuple[str, ...] = FAMILIES) -> Entry:
    """Import one plug-in.

    Raises:
        UnknownNameError: if no file has that name.
    """
    modules = where(packages)
    if name not in modules:
        raise UnknownNameError(name, list(modules))
    return Entry(name, importlib.import_module(modules[name]))

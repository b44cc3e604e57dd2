"""Every figure of a panel, found by its file: a module here with `FIGURE`, or several `FIGURES`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

import analysis.figures as folder
from analysis.figures.panels import Panel


@dataclass(frozen=True, slots=True)
class PanelFigure:
    """A figure of one panel.

    Attributes:
        name: begins the names of its files.
        title: stands under it.
        draw: gives None where the store lacks what it shows.
        slow: takes minutes; reports of a paper that shows it draw it, others do not.
    """

    name: str
    title: str
    draw: Callable[[Panel], Figure | None]
    slow: bool = False


def panel_figures() -> list[PanelFigure]:
    """All of them, in the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    single = [module.FIGURE for module in modules if hasattr(module, "FIGURE")]
    return [*single, *(one for module in modules for one in getattr(module, "FIGURES", ()))]

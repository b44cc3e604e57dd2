"""Figures of a store, for notebooks: `names()` lists them, `draw(results, name)` draws one.

Every figure is a module of this folder; `analysis.figures.catalogue` finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.load import Results

__all__ = ["draw", "names"]

# Modules of this folder import one another by its name: what they need is imported when called.


def names() -> dict[str, str]:
    """Every figure's name and title."""
    from analysis.figures.catalogue import panel_figures

    return {kind.name: kind.title for kind in panel_figures()}


def draw(
    source: Path | Results,
    name: str,
    *,
    labels: Sequence[str] | None = None,
    **where: str | int,
) -> Figure:
    """One figure of one suite, protocol and scenario, as a report draws it.

    Args:
        source: a results folder, or what `analysis.load.read` made of it.
        name: of `names`.
        labels: those to show, None: all.
        where: what tells the scenario from others of the store: `suite`, `protocol`, `dataset`,
            `num_tasks`, `distribution`.

    Raises:
        ValueError: if there is no such figure, none or several scenarios fit, or the store lacks
            what the figure shows.
    """
    from analysis.figures.catalogue import panel_figures
    from analysis.figures.panels import panels
    from analysis.load import read

    kinds = {kind.name: kind for kind in panel_figures()}
    if name not in kinds:
        near = get_close_matches(name, kinds, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(kinds)}"
        raise ValueError(f"unknown figure '{name}'; {hint}")
    known = list(panels(read(source) if isinstance(source, Path) else source))
    places = [
        {"suite": panel.suite, "protocol": panel.protocol, **asdict(panel.setting)}
        for panel in known
    ]
    fits = [
        panel
        for panel, place in zip(known, places, strict=True)
        if all(place.get(key) == value for key, value in where.items())
    ]
    if len(fits) != 1:
        listed = "; ".join(", ".join(f"{k}={v!r}" for k, v in place.items()) for place in places)
        raise ValueError(f"{len(fits)} scenarios fit, name one: {listed}")
    panel = fits[0] if labels is None else fits[0].only(labels)
    figure = None if panel is None else kinds[name].draw(panel)
    if figure is None:
        raise ValueError(f"the store lacks what '{name}' shows")
    return figure

"""A data set as a suite names it: the settings of its own file, and those that every set has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness import plugins
from harness.config import mapping, plain, settings
from harness.data.imbalance import Imbalance
from harness.spec import Component

IMBALANCE: Final = "imbalance"
"""The setting that every data set has besides its own; not there, if it is not asked for."""


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """The typed settings of a data set: `config`, of its file; `imbalance`, None for all images."""

    config: Any
    imbalance: Imbalance | None


def dataset_entry(name: str, values: Mapping[str, Any], *, where: str) -> DatasetEntry:
    """Check the settings of a data set and fill in the defaults.

    Raises:
        UserError: for an unknown data set or key, or a value that does not fit.
    """
    own = {key: value for key, value in values.items() if key != IMBALANCE}
    chosen = values.get(IMBALANCE)
    found = plugins.find("data set", name, where=where)
    config = settings(found.config, own, where=f"{where}: data set {name}")
    if chosen is None:
        return DatasetEntry(config, None)
    where = f"{where}: {name}: {IMBALANCE}"
    return DatasetEntry(config, settings(Imbalance, mapping(chosen, where=where), where=where))


def dataset_component(name: str, values: Mapping[str, Any], *, where: str) -> Component:
    """The same as plain values, every one of them, for a trial's spec."""
    entry = dataset_entry(name, values, where=where)
    shared = {} if entry.imbalance is None else {IMBALANCE: plain(entry.imbalance)}
    return Component(name, {**plain(entry.config), **shared})

"""Find a data set by its file name in `harness/data/sets/`, and load it at most once a process."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness.data.base import Dataset
from methods.registry import Entry, entry, names

SETS: Final = ("harness.data.sets",)


def dataset_names() -> list[str]:
    """Every data set, sorted."""
    return names(SETS)


def dataset_entry(name: str) -> Entry:
    """The module of one data set: `Config`, `num_classes(config)`, `load(config, root)`."""
    return entry(name, SETS)


def data_root(chosen: str | None = None) -> Path:
    """Where data sets live: `chosen`, else ENGRAM_DATA, else ~/.cache/engram."""
    return (
        Path(chosen or os.environ.get("ENGRAM_DATA") or "~/.cache/engram").expanduser().absolute()
    )


@lru_cache(maxsize=2)
def load(name: str, config: Any, root: Path) -> Dataset:  # noqa: ANN401 - a set's own Config
    """The data set with these settings.

    The last two stay in memory: trials that follow each other in one process share them, and
    nothing writes to them.

    Raises:
        DataError: if it is not there or damaged.
    """
    return dataset_entry(name).module.load(config, root)

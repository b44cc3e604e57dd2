"""The data sets of this machine: what there is, whether it is whole, how to get it."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from harness import plugins
from harness.data.base import Dataset
from harness.errors import UserError
from methods.registry import Entry

DOWNLOAD_SECONDS: Final = 20.0
"""A server that says nothing for so long is given up."""


def data_root(chosen: str | None = None) -> Path:
    """Where data sets live: `chosen`, else ENGRAM_DATA, else ~/.cache/engram."""
    return (
        Path(chosen or os.environ.get("ENGRAM_DATA") or "~/.cache/engram").expanduser().absolute()
    )


@lru_cache(maxsize=2)
def load(name: str, config: Any, root: Path) -> Dataset:  # noqa: ANN401 - a set's own Config
    """The data set `name` with these settings.

    The last two stay in memory: trials that follow each other in one process share them, and
    nothing writes to them.

    Raises:
        DataError: if it is not there or damaged.
    """
    return plugins.find("data set", name, where="data").module.load(config, root)


def overview(root: Path) -> Table:
    """Every data set with its number of classes and where it comes from."""
    table = Table(title=f"data sets; root folder {root}", title_justify="left")
    for column in ("name", "classes", "source"):
        table.add_column(column)
    for name in plugins.names("data set"):
        entry = plugins.find("data set", name, where="data list")
        classes = entry.module.num_classes(entry.config())
        table.add_row(name, str(classes), entry.module.SOURCE)
    return table


def prepare(name: str, root: Path, *, download: bool) -> None:
    """Make a data set ready: generate it, or with `download` fetch it.

    Raises:
        UserError: if that cannot be done, with what can.
    """
    entry = plugins.find("data set", name, where="data prepare")
    if download:
        _download(entry, root)
    _load(name, root)


def _download(entry: Entry, root: Path) -> None:
    fetch = getattr(entry.module, "download", None)
    if fetch is None:
        raise UserError(f"data prepare {entry.name} --download: {entry.module.SOURCE}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SECONDS)
    try:
        fetch(root)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"data prepare {entry.name} --download: {reason}; otherwise: {entry.module.SOURCE}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def check(name: str, root: Path) -> str:
    """Load a data set with its default settings and say what is in it.

    Raises:
        UserError: if it is not there or damaged.
    """
    dataset = _load(name, root)
    shape = "x".join(str(side) for side in dataset.image_shape)
    domain = dataset.train.domain
    domains = "" if domain is None else f" in {len(domain.unique())} domains"
    return (
        f"{name}: {len(dataset.train)} training and {len(dataset.test)} test images of {shape}, "
        f"{dataset.num_classes} classes{domains}: ok"
    )


def _load(name: str, root: Path) -> Dataset:
    entry = plugins.find("data set", name, where="data")
    return load(name, entry.config(), root)

"""The data sets of this machine: what there is, whether it is whole, how to get it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness import plugins
from harness.data.base import Dataset, first_whole
from harness.data.entries import dataset_entry
from harness.data.prepared import Request, prepared, ready
from harness.errors import UserError
from harness.suite import parse_assignments
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
    return read(name, config, root)


def read(name: str, config: Any, root: Path) -> Dataset:  # noqa: ANN401 - a set's own Config
    """The same, not kept in memory."""
    module = plugins.find("data set", name, where="data").module
    if hasattr(module, "load"):
        return module.load(config, root)
    return prepared(request(name, config, root), module.traits(config))


def request(name: str, config: Any, root: Path, *, workers: int | None = None) -> Request:  # noqa: ANN401
    """What the store of prepared images has to know of a data set that lies on disk."""
    module = plugins.find("data set", name, where="data").module

    def find() -> Path:
        return first_whole(
            name,
            module.places(root),
            missing=lambda folder: module.missing(folder, config),
            source=module.SOURCE,
        )

    return Request(name, config, root, find, lambda folder: module.scan(folder, config), workers)


def settings_of(name: str, assignments: Sequence[str], *, where: str) -> Any:  # noqa: ANN401
    """The `Config` of a data set with the `key=value` assignments of `--set`.

    Raises:
        UserError: for a set or a key that there is not, or a value that does not fit.
    """
    return dataset_entry(name, parse_assignments(assignments), where=where).config


def prepare(
    name: str,
    config: Any,  # noqa: ANN401 - a set's own Config
    root: Path,
    *,
    download: bool = False,
    workers: int | None = None,
) -> Dataset:
    """Make a data set ready, generated or decoded; with `download` fetch it first.

    Args:
        name: Of the set.
        config: Its settings.
        root: The data root.
        download: Whether it may be fetched.
        workers: Processes that decode at once; None: one a core.

    Raises:
        UserError: if that cannot be done, with what can.
    """
    entry = plugins.find("data set", name, where="data prepare")
    if download:
        _download(entry, root)
    if not hasattr(entry.module, "load"):
        ready(request(name, config, root, workers=workers), rescan=True)
    return read(name, config, root)


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

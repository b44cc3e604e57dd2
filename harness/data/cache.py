"""Arrays that are costly to make, kept in one file that concurrent processes make only once."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.uint8]]

_log = logging.getLogger(__name__)


def cached_arrays(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Read the arrays stored at `path`, or make them and store them there.

    A file appears whole by a rename, and one process at a time makes it while the others wait. A
    damaged file is made again. Where the folder cannot be written, the arrays are made in memory.
    """
    stored = _read(path)
    if stored is not None:
        return stored
    try:
        lock = locked(path)
    except OSError as error:
        _log.info("%s cannot be written (%s): its content is kept in memory only", path, error)
        return make()
    with lock:
        stored = _read(path)  # another process may have made it while this one waited
        if stored is None:
            _log.info("making %s (once)", path)
            stored = make()
            _write(path, stored)
        return stored


def locked(path: Path) -> IO[bytes]:
    """Hold the lock of `path` until the file returned here is closed, or the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        lock.close()
        raise
    return lock


def _read(path: Path) -> Arrays | None:
    """The stored arrays; None if the file is absent or damaged (a zip holds a checksum of each)."""
    if not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("its end is missing")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _log.warning("%s is damaged (%s): it is made again", path, error)
        return None


def _write(path: Path, arrays: Arrays) -> None:
    handle, part = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        Path(part).chmod(0o644)  # others on a shared disk may read it
        Path(part).replace(path)
    except OSError as error:
        _log.info("%s cannot be written (%s): its content is kept in memory only", path, error)
    finally:
        Path(part).unlink(missing_ok=True)

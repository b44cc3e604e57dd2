"""Read trial files, thousands of small Parquet files, into one arrow table with their metadata.

Files merged by `compact` are read by `analysis.part_files`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.schema import (
    GROUP_KEY,
    MANIFEST_KEY,
    PRIMARY_KEY,
    SCHEMA,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    TRIALS,
    digest,
)

UNKNOWN: Final = "unknown"

_FILES_A_BATCH: Final = 256  # enough that a batch's cost is its files, few enough to share out
_THREADS: Final = min(8, os.cpu_count() or 1)


class StoreError(Exception):
    """A store that cannot be read; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made one trial: git revision (or `UNKNOWN`), uncommitted changes, library versions.

    `manifest` is all that is known (JSON); `path` the file that holds its rows, and `numbers` their
    digest, where it is stored beside them.
    """

    trial_id: str
    revision: str
    dirty: bool
    versions: tuple[tuple[str, str], ...]
    path: Path
    numbers: str
    manifest: str = field(repr=False)

    @property
    def digest(self) -> str:
        """That of its numbers (`harness.schema.digest`); of a trial file, read when needed."""
        if self.numbers:
            return self.numbers
        status = self.path.stat()
        return _file_digest(self.path, status.st_mtime_ns, status.st_size)


@dataclass(frozen=True, slots=True)
class _Trial:
    table: pa.Table
    group: str
    primary: str
    provenance: Provenance


def stored(root: Path) -> list[Path]:
    """The finished trials' files, sorted; half-written ones begin with a dot or underscore."""
    folder = root / TRIALS
    if not root.is_dir():
        raise StoreError(f"{root}: no such folder of results")
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".parquet"))
    return [folder / name for name in names if not name.startswith((".", "_"))]


def read_trials(paths: Sequence[Path]) -> tuple[pa.Table, list[Provenance]]:
    """All rows of these files, with the columns `group` and `primary`, and each file's provenance.

    Text columns come as dictionaries, so that a name costs its bytes once and not once a row.
    """
    batches = [paths[i : i + _FILES_A_BATCH] for i in range(0, len(paths), _FILES_A_BATCH)]
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(_read_batch, batches))
    tables = [table for table, _ in parts] or [_encoded(_with_metadata([]))]
    rows = pa.concat_tables(tables).unify_dictionaries()
    return rows, [line for _, lines in parts for line in lines]


def read_manifest(root: Path, trial_id: str) -> dict[str, Any] | None:
    """The manifest of one trial; None if it has no file of its own."""
    path = root / TRIALS / f"{trial_id}.parquet"
    if not path.is_file():
        return None
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    return manifest_of(path, _text(path, metadata, MANIFEST_KEY))


def _read_batch(paths: Sequence[Path]) -> tuple[pa.Table, list[Provenance]]:
    trials = [_read(path) for path in paths]
    return _encoded(_with_metadata(trials)), [trial.provenance for trial in trials]


def _read(path: Path) -> _Trial:
    # On files of 60 rows, neither prefetch nor threads inside one file pay: without them it takes
    # about half the CPU time of `pyarrow.parquet.read_table` (benchmarks/load_many_trials.py).
    try:
        with pa.OSFile(str(path)) as handle:
            table = pq.ParquetFile(handle, pre_buffer=False).read(use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    metadata = table.schema.metadata or {}
    check_version(path, metadata)
    table = _conform(path, table)
    text = _text(path, metadata, MANIFEST_KEY)
    provenance = provenance_of(path, text)
    if provenance.trial_id != path.stem:
        raise StoreError(f"{path}: holds trial {provenance.trial_id}; was the file renamed?")
    group, primary = _text(path, metadata, GROUP_KEY), _text(path, metadata, PRIMARY_KEY)
    return _Trial(table, group, primary, provenance)


def unreadable(path: Path, error: Exception) -> StoreError:
    """What to say of a file that cannot be read."""
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StoreError(f"{path}: damaged or cut short, remove it and run its suite again ({cause})")


def check_version(path: Path, metadata: dict[bytes, bytes]) -> None:
    """Refuse files of another schema."""
    found = _text(path, metadata, SCHEMA_KEY)
    if not found.isdigit():
        raise StoreError(f"{path}: schema version '{found}' is not a number")
    if int(found) > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by a newer version of this program: "
            f"schema {found}, and this one reads up to {SCHEMA_VERSION}"
        )
    if int(found) < SCHEMA_VERSION:
        raise StoreError(f"{path}: schema {found} is older than {SCHEMA_VERSION}, run it again")


def _text(path: Path, metadata: dict[bytes, bytes], key: bytes) -> str:
    if key not in metadata:
        raise StoreError(f"{path}: not a trial file, its metadata lack '{key.decode()}'")
    return metadata[key].decode()


def manifest_of(path: Path, text: str) -> dict[str, Any]:
    """A manifest from its JSON."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{path}: its manifest is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path}: its manifest is not a JSON object")
    return found


def provenance_of(path: Path, text: str, numbers: str = "") -> Provenance:
    """What a manifest says of the making of a trial; `numbers` is the digest of its rows."""
    found = manifest_of(path, text)
    git, versions = found.get("git") or {}, found.get("versions") or {}
    pairs = tuple(sorted((str(name), str(one)) for name, one in versions.items() if one))
    trial_id, revision = str(found.get("trial_id", path.stem)), git.get("revision") or UNKNOWN
    return Provenance(trial_id, revision, bool(git.get("dirty")), pairs, path, numbers, text)


@cache
def _file_digest(path: Path, changed: int, size: int) -> str:
    """The digest of a trial file; `changed` and `size` tell it from what stood there before."""
    del changed, size
    return digest(_read(path).table)


def _conform(path: Path, table: pa.Table) -> pa.Table:
    """The table with this schema's columns, in its order and types."""
    if table.schema.equals(SCHEMA):
        return table.replace_schema_metadata(None)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        columns = ", ".join(f"'{name}'" for name in missing)
        raise StoreError(f"{path}: an older schema without column {columns}, run it again")
    try:
        return table.select(SCHEMA.names).replace_schema_metadata(None).cast(SCHEMA)
    except pa.ArrowException as error:
        raise StoreError(
            f"{path}: a column has another type than schema {SCHEMA_VERSION} says: {error}"
        ) from error


def _with_metadata(trials: Sequence[_Trial]) -> pa.Table:
    lengths = [trial.table.num_rows for trial in trials]
    rows = pa.concat_tables([SCHEMA.empty_table(), *(trial.table for trial in trials)])
    rows = rows.append_column("group", _repeat([trial.group for trial in trials], lengths))
    return rows.append_column("primary", _repeat([trial.primary for trial in trials], lengths))


def _repeat(values: Iterable[str], lengths: Sequence[int]) -> pa.Array:
    which = np.repeat(np.arange(len(lengths)), lengths)
    return pa.array(list(values), pa.string()).take(pa.array(which, pa.int64()))


def _encoded(table: pa.Table) -> pa.Table:
    """The table in one piece a column, text as dictionaries."""
    columns = [
        column.combine_chunks().dictionary_encode()
        if pa.types.is_string(column.type)
        else column.combine_chunks()
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)

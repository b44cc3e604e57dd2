"""The result store: one Parquet file a finished trial. A file that exists is complete.

Layout and columns are those of `harness.schema`. Nothing is ever appended to or overwritten: a
result appears by an atomic create-if-absent, so that any number of runs may share a store.
`harness.compact` merges many files into a part; a trial is stored if it is in either.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

from harness import schema
from harness.checkpoint import CheckpointFolder
from harness.errors import UserError
from harness.parts import Part, parts
from harness.schema import SCHEMA, Row

DIVERGED: Final = "diverged"
LOCKS: Final = "locks"
_SUFFIX: Final = ".parquet"
_PARQUET_END: Final = b"PAR1"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial is not stored. `kind`: user, out of memory, diverged, lost, timeout."""

    trial_id: str
    kind: str
    message: str
    traceback: str
    attempt: int
    time: str
    title: str

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["class"] = data.pop("kind")
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Failure:
        values = {**data, "kind": data["class"]}
        return cls(**{name: values[name] for name in cls.__slots__})


@final
class Store:
    """A results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def create(self) -> None:
        """Make the folders.

        Raises:
            UserError: if they cannot be made or written to.
        """
        try:
            for folder in (schema.TRIALS, schema.SUITES, schema.FAILURES, schema.CHECKPOINTS):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            probe = self.root / schema.TRIALS / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"--results {self.root}: cannot be written: {error.strerror}") from None

    def path(self, trial_id: str) -> Path:
        """The file of a trial that is not merged into a part."""
        return self.root / schema.TRIALS / f"{trial_id}.parquet"

    def has(self, trial_id: str) -> bool:
        # In this order: a part is there before the files that it replaces go.
        return self.path(trial_id).exists() or self._part(trial_id) is not None

    def stored(self) -> frozenset[str]:
        """Ids of all stored trials, from one listing of the folders."""
        loose = self.loose()
        return frozenset(loose).union(*(part.places for part in parts(self.root)))

    def loose(self) -> list[str]:
        """Ids of the trials with a file of their own, sorted."""
        folder = self.root / schema.TRIALS
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(_SUFFIX))
        return [name.removesuffix(_SUFFIX) for name in names if not name.startswith((".", "_"))]

    def _part(self, trial_id: str) -> Part | None:
        found = (part for part in parts(self.root) if trial_id in part.places)
        return next(found, None)

    def check(self, trial_id: str) -> None:
        """A cheap look at a stored file.

        Raises:
            UserError: if it was cut short, which the store itself never does.
        """
        path = self.path(trial_id)
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_PARQUET_END)))
            if file.read() != _PARQUET_END:
                raise UserError(
                    f"{path}: truncated or not a Parquet file; "
                    "delete it and run the suite again to make it anew"
                )

    def write(self, rows: Iterable[Row], manifest: Mapping[str, Any]) -> bool:
        """Store a finished trial; False if it was there already.

        Args:
            rows: the measurements, all of one trial.
            manifest: provenance, with the keys `trial_id`, `group` and `primary`.
        """
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
        metadata = {
            schema.SCHEMA_KEY: str(schema.SCHEMA_VERSION),
            schema.GROUP_KEY: manifest["group"],
            schema.PRIMARY_KEY: manifest["primary"],
            schema.MANIFEST_KEY: json.dumps(manifest, sort_keys=True),
        }
        final_path = self.path(manifest["trial_id"])
        partial = final_path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            pq.write_table(table.replace_schema_metadata(metadata), partial)
            sync(partial)
            return _create(partial, final_path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, trial_id: str) -> tuple[pa.Table, dict[str, Any]]:
        """Rows and manifest of a stored trial.

        Raises:
            UserError: if it is not there, damaged, or of another version.
        """
        part = self._part(trial_id)
        if part is None or self.path(trial_id).exists():
            return self.read_loose(trial_id)
        return part.table(trial_id), part.manifests([trial_id])[trial_id]

    def read_loose(self, trial_id: str) -> tuple[pa.Table, dict[str, Any]]:
        """The same of a trial with a file of its own."""
        path = self.path(trial_id)
        with _naming(path):
            table = pq.read_table(path)
        return table, _manifest(path, table.schema.metadata or {})

    def loose_manifest(self, trial_id: str) -> dict[str, Any]:
        """The manifest of a trial with a file of its own, without a look at its rows."""
        path = self.path(trial_id)
        with _naming(path):
            metadata = pq.read_metadata(path).metadata
        return _manifest(path, metadata or {})

    def manifests(self, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What made each of these trials, without their rows; unreadable ones are left out.

        A part is read once for all of its trials.
        """
        wanted = set(trial_ids)
        found: dict[str, dict[str, Any]] = {}
        for part in parts(self.root):
            found |= part.manifests(wanted & part.places.keys())
        for trial_id in sorted(wanted - found.keys()):
            with suppress(UserError):
                found[trial_id] = self.loose_manifest(trial_id)
        return found

    @contextmanager
    def claim(self, trial_id: str) -> Generator[bool]:
        """Hold a trial while it runs; yields False if another process holds it.

        The lock is the operating system's and ends with its process however that dies. It saves
        work, no more: where it is not to be had, two runs of a trial still store it once.
        """
        path = self.root / LOCKS / trial_id
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass  # a file system without locks
            yield True
            path.unlink(missing_ok=True)

    def checkpoints(self, trial_id: str) -> CheckpointFolder:
        return CheckpointFolder(self.root / schema.CHECKPOINTS / trial_id)

    def records(self, trial_id: str) -> Path:
        """The folder of a trial's records of every image (`harness.records`)."""
        return self.root / schema.RECORDS / trial_id

    def fail(self, failure: Failure) -> None:
        """Note why a trial failed, in place of an earlier note."""
        self._replace(schema.FAILURES, failure.trial_id, failure.to_json())

    def clear_failure(self, trial_id: str) -> None:
        (self.root / schema.FAILURES / f"{trial_id}.json").unlink(missing_ok=True)

    def failures(self) -> dict[str, Failure]:
        """The last failure of each trial that has one, by id."""
        found: dict[str, Failure] = {}
        for path in (self.root / schema.FAILURES).glob("*.json"):
            try:
                found[path.stem] = Failure.from_json(json.loads(path.read_text()))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a damaged note only means that the trial runs again
        return found

    def write_suite(self, name: str, document: Mapping[str, Any]) -> None:
        """Note which trials a suite wants."""
        self._replace(schema.SUITES, name, document)

    def write_search(self, name: str, document: Mapping[str, Any]) -> None:
        """Note what a search has tried."""
        self._replace(schema.SEARCHES, name, document)

    def storage(self, name: str) -> Path:
        """The file of Optuna's storage of a search."""
        path = self.root / schema.SEARCHES / f"{name}.db"
        path.parent.mkdir(exist_ok=True)
        return path

    def _replace(self, folder: str, name: str, document: Mapping[str, Any]) -> None:
        self.write_text(self.root / folder / f"{name}.json", json.dumps(document, indent=1))

    def write_text(self, path: Path, text: str) -> None:
        """Put a file of the store in the place of an earlier one, whole or not at all."""
        partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        partial.replace(path)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """What goes wrong with reading a file, as a message that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such trial is stored") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: damaged: {error}") from None


def _manifest(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    version = metadata.get(schema.SCHEMA_KEY, b"unknown").decode()
    if version != str(schema.SCHEMA_VERSION):
        raise UserError(
            f"{path}: schema version {version}, this program writes {schema.SCHEMA_VERSION}"
        )
    return json.loads(metadata[schema.MANIFEST_KEY])


def _create(partial: Path, final_path: Path) -> bool:
    """Give a whole file its final name unless that name is taken; atomic."""
    try:
        os.link(partial, final_path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if final_path.exists():
            return False
        partial.rename(final_path)
    sync(final_path.parent)
    return True


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

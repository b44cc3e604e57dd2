"""Merge trial files into few: the same rows, sorted, in one part of the store.

A part appears whole before the files that it replaces are removed, so that a crash at any moment
leaves every result in one place or in two. Readers take what lies in two places once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harness import schema
from harness.errors import UserError
from harness.parts import Part, parts
from harness.schema import INDEX, SCHEMA, digest
from harness.store import LOCKS, Store, sync

ROWS_A_GROUP: Final = 2**18
"""Rows of a row group, more or less, as a trial is never split; some 60 MB while in memory."""

_VERSION: Final = {schema.SCHEMA_KEY: str(schema.SCHEMA_VERSION)}

Notify = Callable[[int, int], None]
"""Called with the trials done and those there are."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: trials in the new part, files and parts that it replaces, bytes before, after.

    `part` is None if there was nothing to do.
    """

    part: Path | None
    trials: int
    files: int
    old_parts: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class _Source:
    """A trial, its manifest as text, and the part that holds it; None: a file of its own."""

    trial_id: str
    manifest: str
    part: Part | None


def compact(store: Store, notify: Notify | None = None) -> Compacted:
    """Merge all trial files and parts of a store into one part, and remove them.

    Raises:
        UserError: if a file is damaged or of another version, if two results of one trial differ
            (nothing is changed then), or if another process is at it.
    """
    if not store.root.is_dir():
        raise UserError(f"{store.root}: no such folder of results")
    with _alone(store.root):
        _remove_leftovers(store.root)
        loose, old = store.loose(), parts(store.root)
        count = len(loose) + sum(len(part.places) for part in old)
        if not loose and len(old) <= 1:
            return Compacted(None, count, 0, len(old), 0, 0)
        sources = _sorted(_sources(store, loose, old))
        before = _size(store, loose, old)
        part = _write(store, sources, notify)
        _remove(store, loose, [one.folder for one in old if one.folder != part])
        after = sum(path.stat().st_size for path in part.iterdir())
        return Compacted(part, len(sources), len(loose), len(old), before, after)


@contextmanager
def _alone(root: Path) -> Generator[None]:
    path = root / LOCKS / "compact"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another process is compacting it") from None
        yield


def _sources(store: Store, loose: Sequence[str], old: Sequence[Part]) -> dict[str, _Source]:
    """Every trial once; of one that lies in several places, the first."""
    found: dict[str, _Source] = {}
    digests: dict[str, tuple[str, Path]] = {}
    for part in old:
        manifests = part.manifests()
        for trial_id, place in part.places.items():
            _agree(digests, trial_id, place.digest, part.folder)
            manifest = json.dumps(manifests[trial_id], sort_keys=True)
            found.setdefault(trial_id, _Source(trial_id, manifest, part))
    for trial_id in loose:
        if trial_id in digests:
            table, _ = store.read_loose(trial_id)
            _agree(digests, trial_id, digest(table), store.path(trial_id))
        else:
            manifest = json.dumps(store.loose_manifest(trial_id), sort_keys=True)
            found[trial_id] = _Source(trial_id, manifest, None)
    return found


def _agree(digests: dict[str, tuple[str, Path]], trial_id: str, found: str, where: Path) -> None:
    first, place = digests.setdefault(trial_id, (found, where))
    if first != found:
        raise UserError(
            f"two results of trial {trial_id} differ: {place} and {where}; remove the wrong one"
        )


def _sorted(sources: Mapping[str, _Source]) -> list[_Source]:
    """Trials that a table shows together, together."""

    def key(source: _Source) -> tuple[Any, ...]:
        held = json.loads(source.manifest)
        spec = held.get("spec", {})
        words = ("suite", "protocol_name", "dataset_label")
        return (
            *(str(held.get(word, "")) for word in words),
            int(spec.get("num_tasks", 0)),
            str(spec.get("distribution", "")),
            str(held.get("label", "")),
            int(spec.get("seed", 0)),
            source.trial_id,
        )

    return sorted(sources.values(), key=key)


def _write(store: Store, sources: Sequence[_Source], notify: Notify | None) -> Path:
    """A new part of these trials, read back and on the disk; returns its folder."""
    folder = store.root / schema.COMPACT
    partial = folder / f".{uuid.uuid4().hex}"
    partial.mkdir(parents=True)
    try:
        lines: list[dict[str, Any]] = []
        with pq.ParquetWriter(
            partial / schema.ROWS_FILE,
            SCHEMA.with_metadata(_VERSION),
            compression="zstd",
            write_page_checksum=True,
        ) as writer:
            for number, group in enumerate(_groups(store, sources)):
                offset = 0
                for source, table in group:
                    place = {"row_group": number, "offset": offset, "rows": table.num_rows}
                    lines.append(_line(source, table) | place)
                    offset += table.num_rows
                writer.write_table(pa.concat_tables(t for _, t in group), row_group_size=offset)
                if notify:
                    notify(len(lines), len(sources))
        index = pa.Table.from_pylist(lines, schema=INDEX.with_metadata(_VERSION))
        pq.write_table(index, partial / schema.INDEX_FILE, compression="zstd")
        _check(partial, lines)
        for path in (partial / schema.ROWS_FILE, partial / schema.INDEX_FILE, partial):
            sync(path)
        words = [f"{line['trial_id']} {line['digest']}" for line in lines]
        final = folder / hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
        if not final.exists():  # else every trial of the files is in that part already
            partial.rename(final)
            sync(folder)
        return final
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _groups(store: Store, sources: Sequence[_Source]) -> Iterator[list[tuple[_Source, pa.Table]]]:
    """The trials in their order, as many at a time as make a row group."""
    group: list[tuple[_Source, pa.Table]] = []
    rows = 0
    read = _Reader(store)
    for source in sources:
        table = read(source)
        if group and rows + table.num_rows > ROWS_A_GROUP:
            yield group
            group, rows = [], 0
        group.append((source, table))
        rows += table.num_rows
    if group:
        yield group


class _Reader:
    """Rows of one trial after the other; of a part, the row group at hand is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: tuple[Path, int] | None = None
        self._group = SCHEMA.empty_table()

    def __call__(self, source: _Source) -> pa.Table:
        if source.part is None:
            table, _ = self._store.read_loose(source.trial_id)
            if not table.schema.equals(SCHEMA):
                path = self._store.path(source.trial_id)
                raise UserError(f"{path}: other columns than this program writes; not merged")
            return table.replace_schema_metadata(None)
        place = source.part.places[source.trial_id]
        if self._held != (source.part.folder, place.row_group):
            with pq.ParquetFile(source.part.folder / schema.ROWS_FILE) as file:
                self._group = file.read_row_group(place.row_group).replace_schema_metadata(None)
            self._held = (source.part.folder, place.row_group)
        return self._group.slice(place.offset, place.rows)


def _line(source: _Source, table: pa.Table) -> dict[str, Any]:
    held = json.loads(source.manifest)
    return {
        "trial_id": source.trial_id,
        "group": held["group"],
        "primary": held["primary"],
        "digest": digest(table),
        "manifest": source.manifest,
    }


def _check(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Read a part back: what is on its way to the disk must be what was read."""
    with pq.ParquetFile(folder / schema.ROWS_FILE, page_checksum_verification=True) as file:
        held, number = SCHEMA.empty_table(), -1
        for line in lines:
            if line["row_group"] != number:
                number = line["row_group"]
                held = file.read_row_group(number)
            found = held.slice(line["offset"], line["rows"])
            if found.num_rows != line["rows"] or digest(found) != line["digest"]:
                raise OSError(f"{folder}: trial {line['trial_id']} reads back differently")


def _size(store: Store, loose: Sequence[str], old: Sequence[Part]) -> int:
    files = [store.path(trial_id) for trial_id in loose]
    files += [path for part in old for path in part.folder.iterdir()]
    return sum(path.stat().st_size for path in files)


def _remove(store: Store, loose: Sequence[str], old: Sequence[Path]) -> None:
    for trial_id in loose:
        store.path(trial_id).unlink()
    for folder in old:
        gone = folder.with_name(f".{uuid.uuid4().hex}")
        folder.rename(gone)  # a part is there whole or not at all
        shutil.rmtree(gone)
    if loose:
        sync(store.path(loose[0]).parent)


def _remove_leftovers(root: Path) -> None:
    """What a crash in the middle of an earlier call left behind."""
    folder = root / schema.COMPACT
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)

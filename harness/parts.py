"""Parts of a store: many finished trials in two files, as `harness.compact` writes them.

A part is a folder `compact/<name>/`; it appears whole, by the renaming of a folder, and never
changes. `harness.schema` says what lies in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from harness import schema
from harness.errors import UserError

_PLACE: Final = ["trial_id", "digest", "row_group", "offset", "rows"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial's rows are in a part, and their digest (`harness.schema.digest`)."""

    digest: str
    row_group: int
    offset: int
    rows: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part; `places` by trial id, in the order of its rows."""

    folder: Path
    places: Mapping[str, Place]

    def table(self, trial_id: str) -> pa.Table:
        """The rows of one trial."""
        place = self.places[trial_id]
        with pq.ParquetFile(self.folder / schema.ROWS_FILE) as file:
            return file.read_row_group(place.row_group).slice(place.offset, place.rows)

    def manifests(self, trial_ids: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """The manifests of these of its trials, or of all, by id."""
        wanted = None if trial_ids is None else [("trial_id", "in", list(trial_ids))]
        table = pq.read_table(
            self.folder / schema.INDEX_FILE, columns=["trial_id", "manifest"], filters=wanted
        )
        ids, texts = (table[name].to_pylist() for name in ("trial_id", "manifest"))
        return {trial_id: json.loads(text) for trial_id, text in zip(ids, texts, strict=True)}


def parts(root: Path) -> list[Part]:
    """The parts of a store, by name.

    Raises:
        UserError: if one is damaged or of another version.
    """
    while True:
        try:
            return [_part(folder) for folder in schema.part_folders(root)]
        except FileNotFoundError:
            # Another process has just put a new part in the place of this one: look again.
            for folder in schema.part_folders(root):
                if not (folder / schema.INDEX_FILE).exists():
                    raise UserError(f"{folder}: without its {schema.INDEX_FILE}") from None


@lru_cache(maxsize=64)
def _part(folder: Path) -> Part:
    path = folder / schema.INDEX_FILE
    try:
        table = pq.read_table(path, columns=_PLACE)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: damaged: {error}") from None
    version = (table.schema.metadata or {}).get(schema.SCHEMA_KEY, b"unknown").decode()
    if version != str(schema.SCHEMA_VERSION):
        raise UserError(
            f"{path}: schema version {version}, this program reads {schema.SCHEMA_VERSION}"
        )
    ids, *columns = (table[name].to_pylist() for name in _PLACE)
    places = (Place(*values) for values in zip(*columns, strict=True))
    return Part(folder, dict(zip(ids, places, strict=True)))

"""Read parts of a store, two files of thousands of trials, into slim frames.

A column is read at a time, so that no more than one of them is held twice.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.trial_files import (
    Provenance,
    StoreError,
    check_version,
    manifest_of,
    provenance_of,
    unreadable,
)
from harness.schema import INDEX, INDEX_FILE, ROWS_FILE, SCHEMA

_THREADS: Final = 2
"""Columns decoded at once; each is held twice while it is."""


def read_part(folder: Path) -> tuple[pd.DataFrame, list[Provenance]]:
    """All rows of a part, as `analysis.load` gives them, and what made each of its trials.

    Raises:
        FileNotFoundError: if a newer part has replaced it in the meantime.
        StoreError: if it is damaged or of another version.
    """
    index, provenance = _index(folder / INDEX_FILE)
    path = folder / ROWS_FILE
    try:
        metadata = pq.read_schema(path).metadata or {}
        check_version(path, metadata)
        with ThreadPoolExecutor(_THREADS) as pool:
            columns = list(pool.map(lambda name: _column(path, name), SCHEMA.names))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise unreadable(path, error) from error
    counts = index["rows"].to_numpy()
    held: dict[str, Any] = dict(zip(SCHEMA.names, columns, strict=True))
    if len(held["value"]) != counts.sum():
        raise StoreError(f"{path}: has {len(held['value'])} rows, and its index {counts.sum()}")
    for name in ("group", "primary"):
        kinds = pd.Categorical(index[name])
        held[name] = pd.Categorical.from_codes(
            np.repeat(kinds.codes, counts), categories=kinds.categories
        )
    return pd.DataFrame(held, copy=False), provenance


def read_part_manifest(folder: Path, trial_id: str) -> dict[str, Any] | None:
    """The manifest of one trial; None if it is not in this part."""
    path = folder / INDEX_FILE
    wanted = [("trial_id", "=", trial_id)]
    try:
        texts = pq.read_table(path, columns=["manifest"], filters=wanted)["manifest"].to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    return manifest_of(path, texts[0]) if texts else None


def _index(path: Path) -> tuple[pd.DataFrame, list[Provenance]]:
    try:
        table = pq.read_table(path, columns=INDEX.names)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    check_version(path, table.schema.metadata or {})
    texts, digests = table["manifest"].to_pylist(), table["digest"].to_pylist()
    provenance = [
        provenance_of(path, text, digest) for text, digest in zip(texts, digests, strict=True)
    ]
    return table.drop_columns(["manifest", "digest"]).to_pandas(), provenance


def _column(path: Path, name: str) -> pd.Series[Any]:
    """One column; text as categories, in as few bytes a row as their number needs."""
    text = pa.types.is_string(SCHEMA.field(name).type)
    table = pq.read_table(
        path, columns=[name], read_dictionary=[name] if text else None, use_threads=False
    )
    if not text:
        return table[name].combine_chunks().to_pandas()
    return table.unify_dictionaries()[name].to_pandas()

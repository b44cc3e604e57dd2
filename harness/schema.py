"""The one table everybody shares: one row per measured number. Imports nothing of ours.

A store is a folder::

    trials/<trial_id>.parquet          one file a finished trial; a file that exists is complete
    compact/<part>/                    many finished trials in two files, in place of theirs
    suites/<name>.json                 which trials a suite wants, with their labels
    failures/<trial_id>.json           the last failure of a trial that is not stored
    checkpoints/<trial_id>/            what an unfinished trial needs to go on
    records/<trial_id>/<kind>/         numbers of every image, if the protocol asks for them
    searches/<name>.json               what a search tried; <name>.db beside it is Optuna's

Each Parquet file carries its provenance in the key-value metadata: `SCHEMA_KEY` the version of
this table, `GROUP_KEY` the digest of the trial's settings without its seed, `PRIMARY_KEY` the
evaluator whose accuracy CA and FA use, `MANIFEST_KEY` a JSON document with the resolved settings,
versions, host and times.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

SCHEMA_VERSION: Final = 1

TRIALS: Final = "trials"
SUITES: Final = "suites"
FAILURES: Final = "failures"
CHECKPOINTS: Final = "checkpoints"
RECORDS: Final = "records"
SEARCHES: Final = "searches"

SCHEMA_KEY: Final = b"engram.schema"
GROUP_KEY: Final = b"engram.group"
PRIMARY_KEY: Final = b"engram.primary"
MANIFEST_KEY: Final = b"engram.manifest"

ALL_TASKS: Final = -1
"""`on_task` of a number that belongs to all tasks together."""

BEFORE_TRAINING: Final = -1
"""`after_task` of a measurement made before the first task."""


@dataclass(frozen=True, slots=True)
class Row:
    """One raw measurement. Derived numbers (CA, FA, forgetting) are computed in `analysis`.

    `value` of metric `accuracy` is a fraction in [0, 1]; `n` is the number of images behind it;
    `samples_seen` counts the images drawn for training so far and `train_seconds` the time spent
    on them. `condition` is None or a variant of the test data, such as `gaussian_noise/3`.
    """

    trial_id: str
    suite: str
    method: str
    label: str
    dataset: str
    distribution: str
    num_tasks: int
    protocol: str
    seed: int
    split: str
    after_task: int
    on_task: int
    evaluator: str
    metric: str
    condition: str | None
    value: float
    n: int
    samples_seen: int
    train_seconds: float


SCHEMA: Final = pa.schema(
    [
        ("trial_id", pa.string()),
        ("suite", pa.string()),
        ("method", pa.string()),
        ("label", pa.string()),
        ("dataset", pa.string()),
        ("distribution", pa.string()),
        ("num_tasks", pa.int32()),
        ("protocol", pa.string()),
        ("seed", pa.int64()),
        ("split", pa.string()),
        ("after_task", pa.int32()),
        ("on_task", pa.int32()),
        ("evaluator", pa.string()),
        ("metric", pa.string()),
        ("condition", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("samples_seen", pa.int64()),
        ("train_seconds", pa.float64()),
    ]
)

COMPACT: Final = "compact"
ROWS_FILE: Final = "rows.parquet"
INDEX_FILE: Final = "trials.parquet"

INDEX: Final = pa.schema(
    [
        ("trial_id", pa.string()),
        ("group", pa.string()),
        ("primary", pa.string()),
        ("digest", pa.string()),
        ("row_group", pa.int32()),
        ("offset", pa.int64()),
        ("rows", pa.int64()),
        ("manifest", pa.string()),
    ]
)
"""Columns of a part's `INDEX_FILE`: a trial a row, in the order of the part's `ROWS_FILE`.

A trial's rows lie together in one row group, `rows` of them from `offset` on; the rest is what its
own file has in the metadata.
"""


def part_folders(root: Path) -> list[Path]:
    """The parts of a store, by name; those being written or removed begin with a dot."""
    try:
        found = sorted((root / COMPACT).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in found if path.is_dir() and not path.name.startswith((".", "_"))]


UNREPEATABLE: Final = frozenset(
    {"train_seconds", "eval_seconds", "epoch_seconds", "peak_memory_bytes"}
)
"""Metrics that measure the machine and not the method: two runs of a trial may differ in them."""

_TEXTS: Final = ("split", "evaluator", "metric", "condition")
_NUMBERS: Final = {
    **dict.fromkeys(("after_task", "on_task", "n", "samples_seen"), "<i8"),
    "value": "<f8",
}


def digest(table: pa.Table) -> str:
    """16 hex digits of what two runs of one trial have in common: all numbers but those of time.

    Args:
        table: the trial's rows in the order of their measurement, with the columns of `SCHEMA`.
    """
    metric = table["metric"].combine_chunks().dictionary_encode()
    timed = [name in UNREPEATABLE for name in metric.dictionary.to_pylist()]
    kept = table.filter(pa.array(~np.array(timed, dtype=bool)[metric.indices.to_numpy()]))
    found = hashlib.sha256()
    for name in _TEXTS:
        # Codes count the texts in the order of their appearance, so that the same rows give the
        # same bytes, whatever wrote them.
        column = kept[name].combine_chunks().dictionary_encode()
        found.update(json.dumps(column.dictionary.to_pylist()).encode())
        found.update(column.indices.fill_null(-1).to_numpy().astype("<i4").tobytes())
    for name, kind in _NUMBERS.items():
        found.update(kept[name].to_numpy().astype(kind).tobytes())
    return found.hexdigest()[:16]

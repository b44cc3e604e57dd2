"""The one table everybody shares: one row per measured number. Imports nothing of ours.

A store is a folder::

    trials/<trial_id>.parquet          one file a finished trial; a file that exists is complete
    suites/<name>.json                 which trials a suite wants, with their labels
    failures/<trial_id>.json           the last failure of a trial that is not stored
    checkpoints/<trial_id>/            what an unfinished trial needs to go on
    records/<trial_id>/<kind>/         numbers of every image, if the protocol asks for them

Each Parquet file carries its provenance in the key-value metadata: `SCHEMA_KEY` the version of
this table, `GROUP_KEY` the digest of the trial's settings without its seed, `PRIMARY_KEY` the
evaluator whose accuracy CA and FA use, `MANIFEST_KEY` a JSON document with the resolved settings,
versions, host and times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

TRIALS: Final = "trials"
SUITES: Final = "suites"
FAILURES: Final = "failures"
CHECKPOINTS: Final = "checkpoints"
RECORDS: Final = "records"

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

"""Records of every image that a trial stored: features and predictions, after each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.trial_files import StoreError
from harness.schema import RECORDS

FEATURES: Final = "features"
PREDICTIONS: Final = "predictions"


def records(root: Path, trial_id: str, kind: str) -> pd.DataFrame:
    """All records of one kind, a row an image and task (`harness.records`), without the features.

    Raises:
        StoreError: if the trial has stored none.
    """
    table = _read(root, trial_id, kind)
    return table.drop_columns(
        [name for name in (FEATURES,) if name in table.column_names]
    ).to_pandas()


def last_records(root: Path, trial_id: str, kind: str, num_tasks: int) -> pd.DataFrame | None:
    """The records of one kind after the last of `num_tasks` tasks; None if there are none."""
    path = root / RECORDS / trial_id / kind / f"after_task_{num_tasks - 1:03d}.parquet"
    return pq.read_table(path).to_pandas() if path.is_file() else None


def features(
    root: Path, trial_id: str, after_task: int | None = None
) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """The records of features, and the features themselves, (N, D), row by row.

    Args:
        root: the store.
        trial_id: whose.
        after_task: of one task alone; None: of all tasks.

    Raises:
        StoreError: if the trial has stored none, or not always as many features.
    """
    table = _read(root, trial_id, FEATURES, after_task)
    column: Any = table.column(FEATURES).combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(table), -1)
    return table.drop_columns([FEATURES]).to_pandas(), vectors


def _read(root: Path, trial_id: str, kind: str, after_task: int | None = None) -> pa.Table:
    folder = root / RECORDS / trial_id / kind
    # Half-written files begin with a dot.
    number = "*" if after_task is None else f"{after_task:03d}"
    files = sorted(folder.glob(f"after_task_{number}.parquet"))
    if not files:
        raise StoreError(f"{folder}: no records of {kind}; a suite asks for them by `records`")
    try:
        return pa.concat_tables([pq.read_table(path) for path in files])
    except pa.ArrowInvalid as error:
        raise StoreError(f"{folder}: its {kind} grow from task to task; take one task") from error

"""Records of a trial, for figures and analyses that need more than accuracies.

A store keeps them in `records/<trial_id>/<kind>/after_task_<k>.parquet`, one file a kind and task,
each written whole or not at all; a task that is learned again after a crash writes the same.
Every kind has a column `after_task`. The protocol's `records` ask for numbers of every measured
image: `image`, the row number in the data set's part that is measured; `label`, its class as a
position in the class order; `task`, which brings that class. Evaluators give others (`Details`).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from harness.measure import Checkpoint, Details, as_numpy, class_masks

Kind = Literal["features", "predictions"]


def write_records(kind: Kind, checkpoint: Checkpoint, folder: Path) -> None:
    """Store what one kind says of every measured image, in place of an earlier file.

    Args:
        kind: see `features` and `predictions`.
        checkpoint: the method after a task.
        folder: of the trial.
    """
    split = checkpoint.split
    columns = {
        "image": _numbers(checkpoint.rows(split)),
        "label": _numbers(checkpoint.labels(split)),
        "task": _numbers(checkpoint.task(split)),
        **RECORDS[kind](checkpoint),
    }
    _write(kind, columns, checkpoint.after_task, folder)


def write_details(details: Details, after_task: int, folder: Path) -> None:
    """Store what an evaluator found after a task, in the folder of the trial."""
    columns = {name: column(values) for name, values in details.columns.items()}
    _write(details.kind, columns, after_task, folder)


def column(values: npt.NDArray[Any]) -> pa.Array:
    """An array (N,) as it is; of (N, ...), each row as a flat list of fixed length."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))


def _write(kind: str, columns: Mapping[str, pa.Array], after_task: int, folder: Path) -> None:
    count = len(next(iter(columns.values())))
    after = pa.array(np.full(count, after_task, dtype=np.int32))
    path = folder / kind / f"after_task_{after_task:03d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        pq.write_table(pa.table({"after_task": after, **columns}), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def features(checkpoint: Checkpoint) -> dict[str, pa.Array]:
    """`features`: the vector (D,) of `Method.embed`, float32."""
    return {"features": column(as_numpy(checkpoint.features(checkpoint.split).float()))}


def predictions(checkpoint: Checkpoint) -> dict[str, pa.Array]:
    """What the classifier says of each image.

    `predicted`: the best of the classes seen; `confidence`: the largest softmax probability among
    them (`Method.class_logits`); `predicted_task_il`: the best class of the image's own task.
    """
    logits, masks = checkpoint.logits, class_masks(checkpoint)
    predicted = logits.masked_fill(~masks.seen, float("-inf")).argmax(1)
    among_seen = checkpoint.class_logits.masked_fill(~masks.seen, float("-inf"))
    confidence = among_seen.softmax(1).amax(1)
    own = logits.masked_fill(~masks.own, float("-inf")).argmax(1)
    return {
        "predicted": _numbers(predicted),
        "confidence": pa.array(confidence.float().cpu().numpy()),
        "predicted_task_il": _numbers(own),
    }


RECORDS: Final[Mapping[Kind, Callable[[Checkpoint], dict[str, pa.Array]]]] = {
    "features": features,
    "predictions": predictions,
}


def _numbers(values: Tensor) -> pa.Array:
    return pa.array(values.cpu().numpy().astype(np.int32))

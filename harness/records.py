"""Per-image records of a trial, for analyses that need more than accuracies.

A store keeps them in `records/<trial_id>/<kind>/after_task_<k>.parquet`, one file a kind and task,
each written whole or not at all; a task that is learned again after a crash writes the same.
Columns of every kind: `after_task`; `image`, the row number in the data set's part that is
measured; `label`, its class as a position in the class order; `task`, which brings that class.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from harness.measure import Checkpoint, class_masks

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
    count = len(columns["image"])
    after = pa.array(np.full(count, checkpoint.after_task, dtype=np.int32))
    path = folder / kind / f"after_task_{checkpoint.after_task:03d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        pq.write_table(pa.table({"after_task": after, **columns}), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def features(checkpoint: Checkpoint) -> dict[str, pa.Array]:
    """`features`: the vector (D,) of `Method.embed`, float32."""
    found = checkpoint.features(checkpoint.split).float().cpu().numpy()
    flat = pa.array(np.ascontiguousarray(found).reshape(-1))
    return {"features": pa.FixedSizeListArray.from_arrays(flat, found.shape[1])}


def predictions(checkpoint: Checkpoint) -> dict[str, pa.Array]:
    """What the classifier says of each image.

    `predicted`: the best of the classes seen; `confidence`: its softmax probability among them;
    `predicted_task_il`: the best class of the image's own task.
    """
    logits, masks = checkpoint.logits, class_masks(checkpoint)
    among_seen = logits.masked_fill(~masks.seen, float("-inf")).softmax(1)
    confidence, predicted = among_seen.max(1)
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

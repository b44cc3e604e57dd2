"""From rows to matrices to one line of metrics a trial, for thousands of trials at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from analysis.metrics import METRICS, Matrix
from harness.schema import BEFORE_TRAINING

ACCURACY: Final = "accuracy"
TASK_IL: Final = "accuracy_task_il"

IDENTITY: Final = (
    "trial_id",
    "group",
    "method",
    "label",
    "dataset",
    "distribution",
    "num_tasks",
    "protocol",
    "seed",
    "primary",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What N trials of T tasks measured; NaN where nothing was.

    `a` (N, T, T) accuracy [trial, after_task, on_task]; `before` (N, T) accuracy before training;
    `n` (N, T) test images of each task; `samples` (N, T) images drawn until the end of each task.
    """

    trial_ids: list[str]
    a: Matrix
    before: Matrix
    n: Matrix
    samples: Matrix

    def inputs(self) -> dict[str, Matrix]:
        """What metrics may need besides the matrix, by name."""
        return {"before": self.before, "n": self.n, "samples": self.samples}


def accuracy_rows(
    frame: pd.DataFrame, *, metric: str = ACCURACY, evaluator: str | None = None
) -> pd.DataFrame:
    """The rows that fill A: one metric of one evaluator, per task, on the plain images.

    `evaluator` None means the one that each trial declares as its primary. The images are those of
    the test split, or of the validation split in trials that measured nothing else.
    """
    rows = frame[(frame["metric"] == metric).to_numpy() & (frame["on_task"] >= 0).to_numpy()]
    rows = rows[rows["condition"].isna().to_numpy()]
    tested = (rows["split"] == "test").to_numpy()
    other = ~rows["trial_id"].isin(rows.loc[tested, "trial_id"].unique()).to_numpy()
    rows = rows[tested | other]
    if evaluator is not None:
        return rows[(rows["evaluator"] == evaluator).to_numpy()]
    keep = np.zeros(len(rows), dtype=bool)
    for name in rows["primary"].unique():
        keep |= ((rows["primary"] == name) & (rows["evaluator"] == name)).to_numpy()
    return rows[keep]


def measured(rows: pd.DataFrame) -> Iterator[Measured]:
    """The matrices of what `accuracy_rows` selected: one stack for each number of tasks."""
    for tasks, part in rows.groupby("num_tasks", sort=True):
        yield _stack(part, int(str(tasks)))


def _stack(rows: pd.DataFrame, tasks: int) -> Measured:
    trial, ids = pd.factorize(rows["trial_id"])
    after, on = rows["after_task"].to_numpy(), rows["on_task"].to_numpy()
    value = rows["value"].to_numpy(dtype=float)
    trained = after != BEFORE_TRAINING
    # One plane more than tasks: BEFORE_TRAINING is -1, so the first measurement lands in the last.
    planes = np.full((len(ids), tasks + 1, tasks), np.nan)
    planes[trial, after, on] = value
    n = np.full((len(ids), tasks), np.nan)
    n[trial, on] = rows["n"].to_numpy(dtype=float)
    samples = np.full((len(ids), tasks), np.nan)
    drawn = rows["samples_seen"].to_numpy(dtype=float)
    samples[trial[trained], after[trained]] = drawn[trained]
    return Measured(
        [str(name) for name in ids], planes[:, :tasks], planes[:, BEFORE_TRAINING], n, samples
    )


def accuracy_matrix(
    frame: pd.DataFrame, metric: str = ACCURACY, evaluator: str | None = None
) -> Matrix:
    """A[after_task, on_task] (T, T) of a frame that holds one trial; NaN where not measured."""
    trials = frame["trial_id"].unique()
    if len(trials) != 1:
        raise ValueError(f"accuracy_matrix takes the rows of one trial, not of {len(trials)}")
    stacks = list(measured(accuracy_rows(frame, metric=metric, evaluator=evaluator)))
    tasks = int(frame["num_tasks"].iloc[0])
    return stacks[0].a[0] if stacks else np.full((tasks, tasks), np.nan)


def summarise(
    frame: pd.DataFrame, metric: str = ACCURACY, evaluator: str | None = None
) -> pd.DataFrame:
    """One row a trial: who it is (`IDENTITY`) and every metric of `analysis.metrics`, as fractions.

    Forward transfer needs the accuracy on tasks before they are seen, which class-incremental
    accuracy has not: for those trials it is that of `accuracy_task_il`.
    """
    trials = frame.drop_duplicates("trial_id")[list(IDENTITY)].reset_index(drop=True)
    scores = _scores(accuracy_rows(frame, metric=metric, evaluator=evaluator))
    if metric == ACCURACY:
        known = _scores(accuracy_rows(frame, metric=TASK_IL, evaluator=evaluator), names=("FWT",))
        scores["FWT"] = scores["FWT"].fillna(known["FWT"].reindex(scores.index))
    return trials.join(scores, on="trial_id")


def _scores(rows: pd.DataFrame, names: tuple[str, ...] = tuple(METRICS)) -> pd.DataFrame:
    """The named metrics of every trial in `rows`, indexed by trial."""
    parts = [
        pd.DataFrame(
            {name: METRICS[name](stack.a, stack.inputs()) for name in names},
            index=pd.Index(stack.trial_ids, dtype=object),
        )
        for stack in measured(rows)
    ]
    empty = pd.DataFrame(columns=pd.Index(names), dtype=float)
    return pd.concat(parts) if parts else empty

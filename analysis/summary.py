"""From rows to matrices to one line of metrics a trial, for thousands of trials at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
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


_NEEDED: Final = (
    *("trial_id", "num_tasks", "after_task", "on_task", "value", "n", "samples_seen"),
)

_ENTRIES: Final = 2**22
"""Of the matrices computed at once, 32 MiB, so that intermediate results stay small."""


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
    frame: pd.DataFrame,
    *,
    metric: str = ACCURACY,
    evaluator: str | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows that fill A: one metric of one evaluator, per task, on the plain images.

    `evaluator` None means the one that each trial declares as its primary. The images are those of
    the test split, or of the validation split in trials that measured nothing else. `columns` are
    those that are wanted, None: all; a frame of millions of rows is not copied for fewer.
    """
    keep = (frame["metric"] == metric).to_numpy() & (frame["on_task"] >= 0).to_numpy()
    keep &= frame["condition"].isna().to_numpy()
    tested = (frame["split"] == "test").to_numpy()
    trials = frame["trial_id"]
    keep &= tested | ~trials.isin(trials[keep & tested].unique()).to_numpy()
    if evaluator is not None:
        keep &= (frame["evaluator"] == evaluator).to_numpy()
    else:
        primary = np.zeros(len(frame), dtype=bool)
        for name in frame["primary"].unique():
            primary |= ((frame["primary"] == name) & (frame["evaluator"] == name)).to_numpy()
        keep &= primary
    chosen: pd.DataFrame = frame if columns is None else frame[list(columns)]
    return chosen[keep]


def measured(rows: pd.DataFrame) -> Iterator[Measured]:
    """The matrices of what `accuracy_rows` selected: of trials of as many tasks, some at a time."""
    tasks = rows["num_tasks"].to_numpy()
    for count in np.unique(tasks):
        part = rows if len(tasks) == (tasks == count).sum() else rows[tasks == count]
        trial, ids = pd.factorize(part["trial_id"])
        if (np.diff(trial) < 0).any():
            order = np.argsort(trial, kind="stable")
            part, trial = part.iloc[order], trial[order]
        at_once = max(1, _ENTRIES // int(count) ** 2)
        for first in range(0, len(ids), at_once):
            low, high = np.searchsorted(trial, [first, first + at_once])
            names = [str(name) for name in ids[first : first + at_once]]
            yield _stack(part.iloc[low:high], trial[low:high] - first, names, int(count))


def _stack(rows: pd.DataFrame, trial: npt.NDArray[np.intp], ids: list[str], tasks: int) -> Measured:
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
    return Measured(ids, planes[:, :tasks], planes[:, BEFORE_TRAINING], n, samples)


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
    frame: pd.DataFrame,
    metric: str = ACCURACY,
    evaluator: str | None = None,
    names: Sequence[str] = tuple(METRICS),
) -> pd.DataFrame:
    """One row a trial: who it is (`IDENTITY`) and metrics of `analysis.metrics`, as fractions.

    `names` are those metrics; every one if not said.

    Forward transfer needs the accuracy on tasks before they are seen, which class-incremental
    accuracy has not: for those trials it is that of `accuracy_task_il`.
    """
    trials = frame.drop_duplicates("trial_id")[list(IDENTITY)].reset_index(drop=True)
    rows = accuracy_rows(frame, metric=metric, evaluator=evaluator, columns=_NEEDED)
    scores = _scores(rows, names)
    if metric == ACCURACY and "FWT" in names:
        rows = accuracy_rows(frame, metric=TASK_IL, evaluator=evaluator, columns=_NEEDED)
        known = _scores(rows, ("FWT",))
        scores["FWT"] = scores["FWT"].fillna(known["FWT"].reindex(scores.index))
    return trials.join(scores, on="trial_id")


def _scores(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
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

"""What one figure shows: every label of a suite on one data set, cut into tasks in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.aggregate import distinct_labels
from analysis.figures.style import Look, looks
from analysis.grid import Setting
from analysis.load import DONE, Results
from analysis.metrics import Matrix
from analysis.records import last_records
from analysis.summary import accuracy_rows, measured

_PANEL = ["suite", "protocol", "dataset", "num_tasks", "distribution"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One suite, protocol and setting, in the suite's order.

    Attributes:
        rows: the accuracies of its trials, under their labels.
        last: all numbers measured after the last task, under the same labels.
        costs: what its trials cost after every task, under the same labels.
        root: of the store, which holds their records.
    """

    suite: str
    protocol: str
    setting: Setting
    rows: pd.DataFrame
    last: pd.DataFrame
    costs: pd.DataFrame
    root: Path

    def labels(self) -> tuple[str, ...]:
        return tuple(map(str, self.rows["label"].unique()))

    def only(self, labels: Iterable[str]) -> Panel | None:
        """The panel of these labels alone, as far as it has them; None if it has none."""
        wanted = list(labels)
        rows, last, costs = (
            frame[frame["label"].isin(wanted).to_numpy()]
            for frame in (self.rows, self.last, self.costs)
        )
        return None if rows.empty else replace(self, rows=rows, last=last, costs=costs)

    def last_details(self, kind: str) -> dict[str, list[pd.DataFrame]]:
        """The records of one kind after the last task: of every label that has any, a seed each."""
        trials = self.rows.drop_duplicates(["label", "trial_id"]).sort_values("seed", kind="stable")
        found: dict[str, list[pd.DataFrame]] = {
            str(label): [] for label in self.rows["label"].unique()
        }
        for label, trial in zip(trials["label"], trials["trial_id"], strict=True):
            frame = last_records(self.root, str(trial), kind, self.setting.num_tasks)
            if frame is not None:
                found[str(label)].append(frame)
        return {label: frames for label, frames in found.items() if frames}


def panels(results: Results, suite: str | None = None) -> Iterator[Panel]:
    """The panels of a store, or of one of its suites, that have anything to show, one at a time."""
    trials = results.trials.assign(label=distinct_labels(results.trials))
    done = trials[trials["state"] == DONE]
    if suite is not None:
        done = done[done["suite"] == suite]
    stored = _Rows(results.rows)
    for _, part in done.groupby(_PANEL, sort=False):
        first = part.iloc[0]
        found = stored.of(part)
        rows = accuracy_rows(found)
        if rows.empty:
            continue
        last = found["after_task"] == found["num_tasks"] - 1
        own = found["trial_id"].isin(rows["trial_id"].unique())
        yield Panel(
            suite=str(first["suite"]),
            protocol=str(first["protocol"]),
            setting=Setting(
                str(first["dataset"]), int(first["num_tasks"]), str(first["distribution"])
            ),
            rows=rows,
            last=found[(last & own).to_numpy()],
            costs=found[((found["evaluator"] == "cost") & own).to_numpy()],
            root=results.root,
        )


class _Rows:
    """The rows of a store by trial, so that a panel's are found without a look at the rest."""

    def __init__(self, rows: pd.DataFrame) -> None:
        codes, names = pd.factorize(rows["trial_id"])
        self._rows = rows
        self._order = np.argsort(codes, kind="stable")
        self._ends = np.cumsum(np.bincount(codes, minlength=len(names)))
        self._place = {str(name): place for place, name in enumerate(names)}

    def of(self, trials: pd.DataFrame) -> pd.DataFrame:
        """All rows of these wanted trials, in their order, under their suite's names for them."""
        theirs = ["suite", "label", "dataset", "primary", "protocol"]
        spans = [self._span(str(name)) for name in trials["trial_id"].unique()]
        places = np.concatenate(spans) if spans else np.empty(0, dtype=np.intp)
        own = self._rows.iloc[places].drop(columns=theirs).astype({"trial_id": object})
        return trials[["trial_id", *theirs]].merge(own, on="trial_id")

    def _span(self, trial_id: str) -> npt.NDArray[np.intp]:
        place = self._place.get(trial_id)
        if place is None:
            return np.empty(0, dtype=np.intp)
        return self._order[self._ends[place - 1] if place else 0 : self._ends[place]]


def looks_in(rows: pd.DataFrame, labels: Iterable[str] | None = None) -> dict[str, Look]:
    """The look of each label of these rows, or of these among them, in the colour of its method."""
    known = rows.drop_duplicates("label")
    methods = dict(zip(known["label"].astype(str), known["method"].astype(str), strict=True))
    found = looks(methods)
    return {label: found[label] for label in (methods if labels is None else labels)}


def matrices(rows: pd.DataFrame) -> dict[str, Matrix]:
    """For every label, its trials' accuracy matrices (N, T, T) in percent."""
    return {
        str(label): 100 * np.concatenate([stack.a for stack in measured(part)])
        for label, part in rows.groupby("label", sort=False, observed=True)
    }

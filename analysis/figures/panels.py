"""What one figure shows: every label of a suite on one data set, cut into tasks in one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.aggregate import labelled
from analysis.figures.style import Look, looks
from analysis.grid import Setting
from analysis.load import Results
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


def panels(results: Results) -> Iterator[Panel]:
    """The panels of a store that have anything to show."""
    rows = labelled(results, accuracy_rows(results.rows))
    last = labelled(results, _last_rows(results.rows))
    costs = labelled(results, results.rows[(results.rows["evaluator"] == "cost").to_numpy()])
    for _, part in rows.groupby(_PANEL, sort=False, observed=True):
        first = part.iloc[0]
        setting = Setting(
            str(first["dataset"]), int(first["num_tasks"]), str(first["distribution"])
        )
        own = part[["suite", "label", "trial_id"]].drop_duplicates()
        yield Panel(
            suite=str(first["suite"]),
            protocol=str(first["protocol"]),
            setting=setting,
            rows=part,
            last=own.merge(last, on=["suite", "label", "trial_id"]),
            costs=own.merge(costs, on=["suite", "label", "trial_id"]),
            root=results.root,
        )


def _last_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["after_task"] == rows["num_tasks"] - 1).to_numpy()]


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

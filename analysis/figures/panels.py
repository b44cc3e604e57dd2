"""What one figure shows: every label of a suite on one data set, cut into tasks in one way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.aggregate import labelled
from analysis.grid import Setting
from analysis.load import Results
from analysis.metrics import Matrix
from analysis.summary import accuracy_rows, measured

_PANEL = ["suite", "protocol", "dataset", "num_tasks", "distribution"]


@dataclass(frozen=True, slots=True)
class Panel:
    """The accuracy rows of one suite, protocol and setting; `rows` keep the suite's order."""

    suite: str
    protocol: str
    setting: Setting
    rows: pd.DataFrame


def panels(results: Results) -> Iterator[Panel]:
    """The panels of a store that have anything to show."""
    rows = labelled(results, accuracy_rows(results.rows))
    for _, part in rows.groupby(_PANEL, sort=False, observed=True):
        first = part.iloc[0]
        setting = Setting(
            str(first["dataset"]), int(first["num_tasks"]), str(first["distribution"])
        )
        yield Panel(str(first["suite"]), str(first["protocol"]), setting, part)


def matrices(rows: pd.DataFrame) -> dict[str, Matrix]:
    """For every label, its trials' accuracy matrices (N, T, T) in percent."""
    return {
        str(label): 100 * np.concatenate([stack.a for stack in measured(part)])
        for label, part in rows.groupby("label", sort=False, observed=True)
    }

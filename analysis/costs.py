"""What methods cost, as columns of tables beside accuracies: bytes held, parameters, seconds.

The evaluator `cost` stores them after every task; a table shows those after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

EVALUATOR: Final = "cost"


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost's short name, its definition for captions, the stored metric, and stored -> shown."""

    name: str
    formula: str
    metric: str
    scale: float


COSTS: Final = {
    cost.name: cost
    for cost in (
        Cost(
            "held_MB",
            "MB that the method holds at the end beside the network that finetuning needs",
            "method_memory_bytes",
            1e-6,
        ),
        Cost("parameters_M", "millions of parameters in training at the end", "parameters", 1e-6),
        Cost("train_s", "seconds of training in all", "train_seconds", 1.0),
        Cost(
            "epoch_s",
            "seconds of an epoch of the last task, its first epoch left out",
            "epoch_seconds",
            1.0,
        ),
        Cost("peak_MB", "MB in use at the peak", "peak_memory_bytes", 1e-6),
    )
}
"""Every cost by its short name."""


def final_costs(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The named costs as stored, after the last task; one row a trial, indexed by its id."""
    last = (rows["after_task"] == rows["num_tasks"] - 1).to_numpy()
    cost = (rows["evaluator"] == EVALUATOR).to_numpy() & rows["condition"].isna().to_numpy()
    found = rows[last & cost].pivot_table(
        index="trial_id", columns="metric", values="value", observed=True
    )
    stored = {name: COSTS[name].metric for name in names}
    return pd.DataFrame(
        {name: found.get(metric, pd.Series(dtype=float)) for name, metric in stored.items()},
        index=found.index,
    )

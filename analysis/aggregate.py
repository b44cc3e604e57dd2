"""From trials to cells: mean and spread over the seeds of trials whose settings are the same.

A cell is one line of a table under one column: a label on one data set, cut into one number of
tasks in one way, under one protocol, of one suite. Trials are grouped by the digest of their
settings without the seed; where two groups would share a cell, their labels say what differs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import scipy.stats

from analysis.load import DIVERGED, DONE, FAILED, MISSING, Results
from analysis.metrics import METRICS
from analysis.scalars import SCALARS, final_scalars
from analysis.summary import ACCURACY, TASK_IL, summarise

CELL: Final = ("suite", "protocol", "label", "dataset", "num_tasks", "distribution")
"""What names a cell."""

STATES: Final = (DONE, DIVERGED, FAILED, MISSING)

AT_MOST: Final = " at ≤ "
"""In the name of a metric of `analysis.equal_memory`: before the budget."""

_TASK_IL_SUFFIX: Final = "_task_il"
_CELL_OF_GROUP: Final = [*CELL, "method", "group", "primary", "reference"]


@dataclass(frozen=True, slots=True)
class Definition:
    """A column's definition, the factor from stored to shown, and which way is better, if any."""

    formula: str
    scale: float
    higher_is_better: bool | None


def definition(name: str) -> Definition:
    """What a column of this name shows: a metric, `<metric>_task_il`, or a scalar.

    Raises:
        ValueError: if there is no such metric.
    """
    if AT_MOST in name:
        base, _ = name.split(AT_MOST)
        known = definition(base)
        formula = f"{base} of the variant of the method that holds most within that memory"
        return Definition(formula, known.scale, known.higher_is_better)
    if name in SCALARS:
        scalar = SCALARS[name]
        return Definition(scalar.formula, scalar.scale, scalar.higher_is_better)
    metric = METRICS[base_metric(name)]
    return Definition(metric.formula, 100.0, metric.higher_is_better)


def base_metric(name: str) -> str:
    """`FA` for `FA` and for `FA_task_il`, the same number with the task known at test time."""
    base = name.removesuffix(_TASK_IL_SUFFIX)
    if base not in METRICS:
        raise ValueError(f"unknown metric '{name}'; there are {', '.join([*METRICS, *SCALARS])}")
    return base


def scored(results: Results, metrics: Sequence[str]) -> pd.DataFrame:
    """The wanted trials with distinct labels and these metrics (as stored; NaN if not done)."""
    trials = results.trials.assign(label=distinct_labels(results.trials))
    scalars = [name for name in metrics if name in SCALARS]
    plain = [name for name in metrics if name not in SCALARS]
    kinds = {name: ACCURACY if base_metric(name) == name else TASK_IL for name in plain}
    trials[list(metrics)] = float("nan")
    for name, found in final_scalars(results.rows, scalars).items():
        trials[str(name)] = trials["trial_id"].map(found.to_dict()).astype(float)
    # The suite's word on the primary evaluator counts; a trial may be stored under another.
    for primary in trials["primary"].unique():
        chosen = trials["primary"] == primary
        summaries = {
            kind: summarise(results.rows, kind, primary, names).set_index("trial_id")
            for kind in dict.fromkeys(kinds.values())
            for names in [[base_metric(name) for name in plain if kinds[name] == kind]]
        }
        for name, kind in kinds.items():
            found = summaries[kind][base_metric(name)].to_dict()
            trials.loc[chosen, name] = trials.loc[chosen, "trial_id"].map(found).astype(float)
    return trials


def cells(results: Results, metrics: Sequence[str] = ("CA", "FA")) -> pd.DataFrame:
    """One row a cell and metric, in the suites' order.

    Columns: `CELL`, `method`, `group`, `primary`, `reference`, `metric`; `mean`, `std` (sample
    standard deviation) and the 95 % t-interval `low` to `high` as stored, accuracies as fractions,
    over the `n` trials where the metric is defined; `scores`, a mapping from their seeds to what
    they measured; and of the `wanted` trials how many are `done`, `diverged`, `failed`, `missing`.
    """
    trials = scored(results, metrics)
    grouped = trials.groupby(_CELL_OF_GROUP, sort=False, dropna=False)
    counts = pd.DataFrame({"wanted": grouped.size()})
    for state in STATES:
        counts[state] = (trials["state"] == state).groupby(grouped.ngroup()).sum().to_numpy()
    parts = [
        counts.assign(
            metric=name,
            mean=grouped[name].mean(),
            std=grouped[name].std(ddof=1),
            n=grouped[name].count(),
            scores=pd.Series(_scores(trials, grouped.ngroup(), name), index=counts.index),
        )
        for name in metrics
    ]
    long = pd.concat(parts).reset_index()
    quantile = pd.Series(scipy.stats.t.ppf(0.975, long["n"].clip(lower=2) - 1))  # std is NaN for 1
    half = quantile * long["std"] / long["n"] ** 0.5
    long = long.assign(low=long["mean"] - half, high=long["mean"] + half)
    measured = ["mean", "std", "n", "low", "high", "scores"]
    return long[[*_CELL_OF_GROUP, "metric", *measured, "wanted", *STATES]]


def _scores(trials: pd.DataFrame, number: pd.Series[int], metric: str) -> list[dict[int, float]]:
    """For each group, by its number, from seed to what was measured; seeds ascending."""
    known = trials[metric].notna()
    part = pd.DataFrame(
        {"number": number[known], "seed": trials.loc[known, "seed"], "value": trials[metric][known]}
    ).sort_values("seed", kind="stable")
    found: list[dict[int, float]] = [{} for _ in range(number.nunique())]
    for place, seed, value in part.itertuples(index=False):
        found[int(place)][int(seed)] = float(value)
    return found


def distinct_labels(trials: pd.DataFrame) -> pd.Series[Any]:
    """Every trial's label, with the settings that differ where groups would share a cell."""
    labels: dict[Hashable, str] = trials["label"].astype(str).to_dict()
    for _, part in trials.groupby(["suite", "protocol", "label"], sort=False):
        per_cell = part.groupby(list(CELL), sort=False)["group"].nunique()
        if (per_cell > 1).any():
            suffixes = _suffixes(part.drop_duplicates([*CELL, "group"]))
            for index, group in part["group"].items():
                labels[index] += f" ({suffixes[group]})"
    return pd.Series(labels, index=trials.index, dtype=object)


def _suffixes(groups: pd.DataFrame) -> dict[str, str]:
    """For each group of one label, the settings in which it differs from those it collides with."""
    described = {
        str(line["group"]): {"method": line["method"], **flat(line["settings"])}
        for line in groups.to_dict("records")
    }
    keys = _differing(groups, described)
    shown = _short_names(keys)
    text = {
        group: ", ".join(f"{shown[key]}={_shown(held[key])}" for key in keys if key in held)
        for group, held in described.items()
    }
    clashes = _clashing(groups, text)
    return {
        group: ", ".join(filter(None, (words, f"group {group[:6]}" if group in clashes else "")))
        for group, words in text.items()
    }


def _differing(groups: pd.DataFrame, described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The settings that differ between groups of one cell, those first that all of them have."""
    common: dict[str, None] = {}
    partial: dict[str, None] = {}
    for _, part in groups.groupby(list(CELL), sort=False):
        held = [described[group] for group in part["group"]]
        for key in sorted({key for settings in held for key in settings}):
            values = {_shown(settings[key]) for settings in held if key in settings}
            if not all(key in settings for settings in held):
                partial[key] = None
            elif len(values) > 1:
                common[key] = None
    return list(common or partial)


def _clashing(groups: pd.DataFrame, text: Mapping[str, str]) -> set[str]:
    """The groups whose words do not tell them from another group of the same cell."""
    words = groups["group"].map(dict(text))
    return set(
        groups.loc[groups.assign(words=words).duplicated([*CELL, "words"], keep=False), "group"]
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names: `protocol.backbone.hidden`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """`replay_weight` for `method.replay_weight`, unless two keys would then read the same."""
    short = {key: key.split(".", 1)[-1] for key in keys}
    taken = list(short.values())
    return {key: key if taken.count(name) > 1 else name for key, name in short.items()}


def _shown(value: object) -> str:
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)

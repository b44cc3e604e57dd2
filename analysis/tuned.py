"""Suites that a search wrote: whether they give its values again, and the tasks it did not see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.grid import DIGITS
from analysis.load import DONE, Results
from analysis.metrics import METRICS
from analysis.page import PlainTable
from analysis.search_tables import percent
from analysis.stats import spread
from analysis.summary import accuracy_rows, measured, summarise


def once_more(results: Results, suite: str) -> PlainTable | None:
    """The values that a search selected beside those of the suite's own trials; None: no search."""
    origin = results.origins.get(suite)
    if origin is None:
        return None
    metric = str(origin["metric"])
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for one in origin["selected"]:
        now = _value(results, one, metric)
        lines.append([one["study"], percent(one["value"]), percent(now), _same(one["value"], now)])
        values.append([None, one["value"], now, None])
    caption = (
        f"{metric} in percent on the validation images and seeds of the search {origin['name']}: "
        "the mean over its seeds, then and in this store."
    )
    heads = ["study", "selected", "here", ""]
    return PlainTable(heads, lines, values, "Selected values, once more", caption)


def _same(selected: float, now: float | None) -> str:
    if now is None:
        return "not run yet"
    # Both are means of the same accuracies, which may be summed in another order.
    return "the same" if math.isclose(selected, now, rel_tol=1e-12) else "differs"


def _value(results: Results, selected: Mapping[str, Any], metric: str) -> float | None:
    ids = list(selected["trial_ids"])
    frame: pd.DataFrame = results.rows[results.rows["trial_id"].isin(ids).to_numpy()]
    if frame["trial_id"].nunique() < len(ids):
        return None
    scores = summarise(frame, names=(metric,)).set_index("trial_id")[metric]
    return math.fsum(float(scores[trial_id]) for trial_id in ids) / len(ids)


def rest(results: Results, suite: str) -> PlainTable | None:
    """CA and FA over the tasks after the first ones, on which a search chose settings.

    Row k of A counts from the first of these tasks on, and tasks before it do not count. None where
    the search saw all tasks, or no test is stored.
    """
    first = results.origins.get(suite, {}).get("first_tasks")
    if not first:
        return None
    own = results.trials
    own = own[(own["suite"] == suite) & (own["state"] == DONE) & (own["num_tasks"] > first)]
    own = own[~own["protocol"].str.endswith("(validation)")]
    rows = results.rows[results.rows["trial_id"].isin(own["trial_id"].tolist()).to_numpy()]
    scores: dict[str, list[float]] = {}
    for stack in measured(accuracy_rows(rows)):
        late = stack.a[:, first:, first:]
        both = np.stack([METRICS[name](late, {}) for name in ("CA", "FA")], -1)
        scores |= dict(zip(stack.trial_ids, both.tolist(), strict=True))
    if not scores:
        return None
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for key, part in own.groupby(["label", "dataset", "num_tasks"], sort=False):
        label, dataset, tasks = map(str, key)
        found = [scores[trial_id] for trial_id in part["trial_id"] if trial_id in scores]
        means = [spread([100 * one[place] for one in found]) for place in (0, 1)]
        texts = [f"{one.mean:.{DIGITS}f} ± {one.std:.{DIGITS}f}" for one in means]
        lines.append([label, f"{dataset}, {tasks} tasks", *texts, str(len(found))])
        values.append([None, None, *(one.mean for one in means), float(len(found))])
    caption = (
        f"Over the tasks after the first {first}, which the search did not see, in percent: mean ± "
        "sample standard deviation over seeds. CA is the mean over the checkpoints from then on."
    )
    heads = ["method", "data set", "CA", "FA", "n"]
    return PlainTable(heads, lines, values, f"Tasks after the first {first}", caption)

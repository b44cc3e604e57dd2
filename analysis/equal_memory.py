"""Methods at equal memory: of each, the variant that holds most within a budget.

Which variant counts is decided by what it holds, never by how well it does: choosing by accuracy
would choose on the test set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from analysis.aggregate import AT_MOST
from analysis.scalars import SCALARS

HELD: Final = "held_MB"
_MOST_BUDGETS: Final = 6
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)


def equal_memory(found: pd.DataFrame, metric: str = "FA") -> tuple[pd.DataFrame, list[str]]:
    """The cells of a table at equal memory, and its columns.

    Args:
        found: cells (`analysis.aggregate.cells`) of one suite and protocol, `metric` and `HELD`.
        metric: what is shown.

    Returns:
        Cells labelled by method, of metrics such as `FA_at_most_2_MB`; none if fewer than two
        methods hold anything.
    """
    held = found[(found["metric"] == HELD) & (found["n"] > 0)].set_index(_KEY)["mean"]
    scale = SCALARS[HELD].scale
    lines: list[dict[Any, Any]] = []
    for line in found[(found["metric"] == metric) & (found["n"] > 0)].to_dict("records"):
        key = tuple(line[name] for name in _KEY)
        if key in held.index and not line["reference"]:
            lines.append({**line, "held": scale * float(held.loc[key])})
    if len({line["method"] for line in lines if line["held"] > 0}) < 2:
        return found.iloc[:0], []
    budgets = _budgets([line["held"] for line in lines])
    chosen: list[dict[Any, Any]] = []
    for budget in budgets:
        name = f"{metric}{AT_MOST}{budget:g}_MB"
        best: dict[tuple[Any, ...], dict[Any, Any]] = {}
        for line in lines:
            place = tuple(line[part] for part in _PLACE)
            if line["held"] <= budget and line["held"] > best.get(place, {"held": -1.0})["held"]:
                best[place] = line
        chosen += [{**line, "label": line["method"], "metric": name} for line in best.values()]
    columns = [f"{metric}{AT_MOST}{budget:g}_MB" for budget in budgets]
    return pd.DataFrame(chosen, columns=found.columns), columns


_SETTING: Final = ["dataset", "num_tasks", "distribution"]
_KEY: Final = ["label", *_SETTING]
_PLACE: Final = ["method", *_SETTING]


def _budgets(held: Sequence[float]) -> list[float]:
    """Steps of 1, 2, 5 that hold what methods hold, the largest ones if there are many."""
    found = {_rounded_up(value) for value in held if value > 0}
    return sorted(found)[-_MOST_BUDGETS:]


def _rounded_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in _STEPS if value <= step * decade * (1 + 1e-9))
    return float(f"{step * decade:.6g}")

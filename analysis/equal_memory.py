"""Methods at equal memory: of each, the variant that holds most within a budget.

Which variant counts is decided by what it holds, never by how well it does: choosing by accuracy
would choose on the test set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
        Cells labelled by method, of metrics such as `FA at ≤ 2 MB`; of no scenario of which fewer
        than two methods hold anything.
    """
    held = found[(found["metric"] == HELD) & (found["n"] > 0)].set_index(_KEY)["mean"]
    scale = SCALARS[HELD].scale
    by_setting: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for line in found[(found["metric"] == metric) & (found["n"] > 0)].to_dict("records"):
        key = tuple(line[name] for name in _KEY)
        if key in held.index and not line["reference"]:
            setting = tuple(line[name] for name in _SETTING)
            line["held"] = scale * float(held.loc[key])
            by_setting.setdefault(setting, []).append(line)
    chosen = [one for lines in by_setting.values() for one in _at_budgets(lines, metric)]
    columns = dict.fromkeys(line["metric"] for line in chosen)
    return pd.DataFrame(chosen, columns=found.columns), sorted(columns, key=_budget)


def _at_budgets(lines: Sequence[dict[Any, Any]], metric: str) -> Iterator[dict[Any, Any]]:
    """For each budget, and each method that has one, the line of its variant."""
    if len({line["method"] for line in lines if line["held"] > 0}) < 2:
        return
    for budget in _budgets([line["held"] for line in lines]):
        fitting = sorted(
            (line for line in lines if line["held"] <= budget), key=lambda line: line["held"]
        )
        for line in {line["method"]: line for line in fitting}.values():
            yield {**line, "label": line["method"], "metric": f"{metric}{AT_MOST}{budget:g} MB"}


def _budget(column: str) -> float:
    return float(column.split(AT_MOST)[1].removesuffix(" MB"))


_SETTING: Final = ["dataset", "num_tasks", "distribution"]
_KEY: Final = ["label", *_SETTING]


def _budgets(held: Sequence[float]) -> list[float]:
    """Steps of 1, 2, 5 that hold what methods hold, the largest ones if there are many."""
    found = {_rounded_up(value) for value in held if value > 0}
    return sorted(found)[-_MOST_BUDGETS:]


def _rounded_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in _STEPS if value <= step * decade * (1 + 1e-9))
    return float(f"{step * decade:.6g}")

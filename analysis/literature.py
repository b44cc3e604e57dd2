"""Published numbers, under the names that they have here: `analysis/published/`."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis.grid import Published

FOLDER: Final = Path(__file__).parent / "published"

COLUMNS: Final = (
    *("source", "dataset", "label", "num_tasks", "metric", "mean", "std", "note", "benchmark"),
    "method",
)


@lru_cache
def published(paper: str) -> pd.DataFrame:
    """What a paper prints, one number a row; empty if nothing of it is kept.

    Columns: `source` (paper and table); `dataset`, `label` and `metric` by our names, `benchmark`
    and `method` by the paper's; `num_tasks`; `mean` and `std` as printed, NaN where it prints none;
    `note`, on what is odd about the number, or what stands in its place.

    Raises:
        ValueError: if `names.toml` lacks a name.
    """
    path = FOLDER / f"{paper}.csv"
    if not path.is_file():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    names = tomllib.loads((FOLDER / "names.toml").read_text(encoding="utf-8"))
    found = pd.read_csv(path, dtype={"note": str}, keep_default_na=True)
    found = found.assign(
        dataset=_ours(names, "benchmarks", found["benchmark"]),
        label=_ours(names, "methods", found["method"]),
        metric=_ours(names, "metrics", found["metric"]),
        note=found["note"].fillna(""),
    )
    return found[list(COLUMNS)]


def beside(cells: pd.DataFrame, printed: pd.DataFrame) -> list[Published | None]:
    """For each of these cells (`analysis.aggregate.cells`), what is printed for it, if anything."""
    known = {_key(line): line for line in printed.to_dict("records")}
    found = (known.get(_key(line)) for line in cells.to_dict("records"))
    return [None if line is None else _published(line) for line in found]


def _key(line: dict[Any, Any]) -> tuple[Any, ...]:
    return str(line["dataset"]), str(line["label"]), int(line["num_tasks"]), str(line["metric"])


def _published(line: dict[Any, Any]) -> Published:
    return Published(float(line["mean"]), float(line["std"]), str(line["note"]))


def _ours(names: dict[str, dict[str, str]], kind: str, theirs: pd.Series[Any]) -> list[str]:
    unknown = [name for name in theirs.unique() if name not in names[kind]]
    if unknown:
        raise ValueError(f"{FOLDER / 'names.toml'}: no [{kind}] entry for {', '.join(unknown)}")
    return [names[kind][name] for name in theirs]

"""What a results folder holds, in a form that two of them can be compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.schema import MANIFEST_KEY

TIMES = {"train_seconds", "eval_seconds", "epoch_seconds", "peak_memory_bytes"}


def numbers(store: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of every stored trial in their order, without what measures the machine."""
    return {path.stem: _rows(path) for path in sorted((store / "trials").glob("*.parquet"))}


def _rows(path: Path) -> list[dict[str, Any]]:
    table = pq.read_table(path).drop_columns(["train_seconds", "suite"])
    rows = [row for row in table.to_pylist() if row["metric"] not in TIMES]
    return [{**row, "value": float(row["value"]).hex()} for row in rows]  # a NaN equals itself so


def manifests(store: Path) -> dict[str, dict[str, Any]]:
    paths = sorted((store / "trials").glob("*.parquet"))
    return {path.stem: json.loads(pq.read_metadata(path).metadata[MANIFEST_KEY]) for path in paths}


def trial_ids(store: Path, suite: str) -> list[str]:
    """The trials that a suite wants, in its order, once it has been run."""
    wanted = json.loads((store / "suites" / f"{suite}.json").read_text())["trials"]
    return [trial["trial_id"] for trial in wanted]


def files(store: Path, folder: str) -> list[str]:
    """Names of all files below a folder of the store, the hidden ones too."""
    return sorted(path.name for path in (store / folder).rglob("*") if path.is_file())

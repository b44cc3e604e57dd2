"""Small stores of made-up results, written as the harness writes them, for tests of `analysis`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from harness import schema
from harness.schema import SCHEMA, Row

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """Who a made-up trial is; its group is made from all but the seed and the names of labels."""

    method: str = "er"
    seed: int = 0
    label: str = ""
    dataset: str = "digits"
    num_tasks: int = 3
    distribution: str = "regular"
    protocol: str = "class_incremental"
    primary: str = "classifier"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def group(self) -> str:
        fields = asdict(self)
        named = {key: fields[key] for key in fields if key not in ("seed", "label", "primary")}
        return _digest(json.dumps(named, sort_keys=True))

    @property
    def trial_id(self) -> str:
        return _digest(f"{self.group} {self.seed}")

    @property
    def reference(self) -> bool:
        """Whether the method trains on the data of all tasks."""
        return self.method in {"joint", "iid"}

    def wanted(self) -> dict[str, Any]:
        """Its entry in a suite file."""
        return {
            **asdict(self),
            "label": self.label or self.method,
            "trial_id": self.trial_id,
            "group": self.group,
            "settings": dict(self.settings),
            "reference": self.reference,
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seen(a: Matrix) -> Matrix:
    """A class-incremental matrix: nothing is measured on tasks not yet seen."""
    return np.where(np.tri(len(a), dtype=bool), a, np.nan)


def rows(
    trial: Trial,
    a: Matrix,
    *,
    metric: str = "accuracy",
    evaluator: str | None = None,
    n: Sequence[int] | None = None,
    before: Sequence[float] = (),
    suite: str = "demo",
) -> list[Row]:
    """The rows of A (T, T), NaN left out; `before` are the accuracies before training."""
    measured = [(after, on, value) for (after, on), value in np.ndenumerate(a) if value == value]
    measured += [(-1, on, value) for on, value in enumerate(before)]
    return [
        Row(
            trial_id=trial.trial_id,
            suite=suite,
            method=trial.method,
            label=trial.label or trial.method,
            dataset=trial.dataset,
            distribution=trial.distribution,
            num_tasks=trial.num_tasks,
            protocol=trial.protocol,
            seed=trial.seed,
            split="test",
            after_task=after,
            on_task=on,
            evaluator=evaluator or trial.primary,
            metric=metric,
            condition=None,
            value=float(value),
            n=n[on] if n else 100,
            samples_seen=50 * (after + 1),
            train_seconds=1.0 * (after + 1),
        )
        for after, on, value in measured
    ]


def write_trial(
    root: Path,
    trial: Trial,
    lines: Sequence[Row],
    *,
    metadata: Mapping[bytes, bytes] | None = None,
    table_schema: pa.Schema = SCHEMA,
) -> Path:
    """Store a trial; `metadata` and `table_schema` make files that other versions would write."""
    manifest = {
        "trial_id": trial.trial_id,
        "group": trial.group,
        "primary": trial.primary,
        "reference": trial.reference,
        "suite": lines[0].suite if lines else "demo",
        "label": trial.label or trial.method,
        "dataset_label": trial.dataset,
        "protocol_name": trial.protocol,
        "spec": {
            "method": {"name": trial.method, "settings": _part(trial, "method")},
            "dataset": {"name": trial.dataset, "settings": _part(trial, "dataset")},
            "protocol": _part(trial, "protocol"),
            "num_tasks": trial.num_tasks,
            "distribution": trial.distribution,
            "class_order": "natural",
            "seed": trial.seed,
        },
        "git": {"revision": "0123456789abcdef", "dirty": False},
        "versions": {"python": "3.11.7", "torch": "2.9.0", "cuda": None},
    }
    keys = {
        schema.SCHEMA_KEY: str(schema.SCHEMA_VERSION).encode(),
        schema.GROUP_KEY: trial.group.encode(),
        schema.PRIMARY_KEY: trial.primary.encode(),
        schema.MANIFEST_KEY: json.dumps(manifest, sort_keys=True).encode(),
    }
    table = pa.Table.from_pylist([asdict(line) for line in lines], schema=table_schema)
    path = root / schema.TRIALS / f"{trial.trial_id}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({**keys, **(metadata or {})}), path)
    return path


def _part(trial: Trial, part: str) -> dict[str, Any]:
    prefix = f"{part}."
    held = trial.settings.items()
    return {key.removeprefix(prefix): value for key, value in held if key.startswith(prefix)}


def write_suite(
    root: Path, trials: Sequence[Trial], name: str = "demo", metrics: Sequence[str] = ()
) -> None:
    """A suite file that wants these trials, in this order, and tables with these columns."""
    document = {
        "schema": 1,
        "suite": name,
        "written": "2026-01-01T00:00:00+00:00",
        "metrics": list(metrics),
        "trials": [trial.wanted() for trial in trials],
    }
    path = root / schema.SUITES / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def write_failure(root: Path, trial: Trial, kind: str, message: str) -> None:
    """The note of a trial that is not stored."""
    note = {
        "trial_id": trial.trial_id,
        "class": kind,
        "message": message,
        "traceback": "Traceback",
        "attempt": 1,
        "time": "2026-01-01T00:00:00+00:00",
        "title": trial.method,
    }
    path = root / schema.FAILURES / f"{trial.trial_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note))

"""Run one stored trial again, inline, and compare every number that is not a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from harness.checkpoint import CheckpointFolder
from harness.data.shelf import data_root
from harness.device import device_for, reproducible
from harness.errors import UserError
from harness.manifest import now, versions
from harness.schema import UNREPEATABLE
from harness.spec import Resources, Trial, TrialSpec
from harness.store import Store
from harness.trial import Progress, TrialRun

_KEY: Final = ("after_task", "on_task", "evaluator", "metric", "condition", "split")
_SHOWN: Final = 10

Number = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome: how many numbers were compared and which of them differ."""

    compared: int
    differences: Sequence[str]
    notes: Sequence[str]

    @property
    def equal(self) -> bool:
        return not self.differences

    def lines(self) -> Iterator[str]:
        yield from self.notes
        if self.equal:
            yield f"all {self.compared} numbers are equal"
            return
        yield f"{len(self.differences)} of {self.compared} numbers differ:"
        yield from self.differences[:_SHOWN]
        if len(self.differences) > _SHOWN:
            yield f"  and {len(self.differences) - _SHOWN} more"


def reproduce(trial_id: str, results: Path, root: str | None, console: Console) -> Comparison:
    """Run `trial_id` from its stored settings, on as many threads, and compare.

    Raises:
        UserError: if it is not stored, or its settings are not of this version.
    """
    table, document = Store(results).read(trial_id)
    trial = _trial(document)
    if trial.trial_id != trial_id:
        raise UserError(
            f"{trial_id}: its stored settings now have the id {trial.trial_id}: "
            "it was made by another version of this program"
        )
    console.print(f"{trial.title}: {trial.spec.num_tasks} tasks", markup=False)

    def notify(progress: Progress) -> None:
        if progress.tasks_done:
            console.print(f"  task {progress.tasks_done} of {progress.num_tasks}", markup=False)

    with tempfile.TemporaryDirectory() as scratch, reproducible(trial.resources.threads):
        run = TrialRun(trial, data_root(root), device_for(trial.resources))
        rows = run.run(CheckpointFolder(Path(scratch)), notify, started=now())
    stored, again = table.to_pylist(), [asdict(row) for row in rows]
    return Comparison(*_compare(stored, again), _notes(document))


def _trial(document: dict[str, Any]) -> Trial:
    return Trial(
        spec=TrialSpec.from_json(document["spec"]),
        suite=document["suite"],
        label=document["label"],
        dataset_label=document["dataset_label"],
        protocol_name=document["protocol_name"],
        resources=Resources(**document["resources"]),
    )


def _compare(stored: list[Number], again: list[Number]) -> tuple[int, list[str]]:
    before, after = _numbers(stored), _numbers(again)
    differences: list[str] = []
    for key in sorted(before.keys() | after.keys(), key=str):
        old, new = before.get(key), after.get(key)
        if repr(old) != repr(new):  # by repr, so that two NaN are the same
            named = ", ".join(f"{k}={v}" for k, v in zip(_KEY, key, strict=True) if v is not None)
            differences.append(f"  {named}: stored {old}, now {new}")
    return len(before), differences


def _numbers(rows: list[Number]) -> dict[tuple[Any, ...], tuple[float, int, int]]:
    return {
        tuple(row[name] for name in _KEY): (row["value"], row["n"], row["samples_seen"])
        for row in rows
        if row["metric"] not in UNREPEATABLE
    }


def _notes(document: dict[str, Any]) -> list[str]:
    """What is different about this machine, which may explain a difference."""
    here = versions()
    changed = [
        f"{name} {was} then, {here.get(name)} now"
        for name, was in document["versions"].items()
        if here.get(name) != was
    ]
    return [f"note: {', '.join(changed)}"] if changed else []

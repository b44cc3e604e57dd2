"""Trials on scikit-learn's digits, so small that every method can be trained several times."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import plugins, protocol
from harness.checkpoint import CheckpointFolder
from harness.config import CONFIGS, read_yaml
from harness.data.stream import RevealedTask, Tally
from harness.schema import UNREPEATABLE, Row
from harness.spec import Component, Resources, Trial, TrialSpec
from harness.trial import Progress, TrialRun
from methods import registry
from methods.base import Batch, Batches, Losses, Method, Recalled, TaskView

NUM_TASKS = 5
CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("ENGRAM_TEST_DEVICE", "cpu"))
"""`ENGRAM_TEST_DEVICE=cuda` runs the contract tests on a GPU."""
DATA = Path(tempfile.gettempdir()) / "engram-tests"
"""Where evaluators find other data sets; digits need no folder."""

BACKBONE = {"name": "cnn", "widths": [4, 8]}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "class_incremental": {
        "epochs": 1,
        "lr": 0.05,
        "evaluators": ["classifier", "probe_ridge", "cost"],
    },
    "online_ssl": {
        "passes": 2,
        "lr": 0.05,
        "objective": {"name": "simclr", "projection_dim": 16},
        "evaluators": ["probe_ridge", "cost"],
        "primary": "probe_ridge",
    },
}
SMALL = {
    "backbone": BACKBONE,
    "batch_size": 32,
    "replay_batch": 16,
    "buffer_size": 40,
    "validation": 0.1,
}


def is_supervised(name: str) -> bool:
    """Whether a method lives in the supervised family."""
    return name in registry.where(("methods.supervised",))


def family(name: str) -> list[str]:
    """Every method of the family that `name` belongs to, sorted."""
    return [other for other in registry.names() if is_supervised(other) == is_supervised(name)]


def tiny_trial(name: str, *, seed: int = 0, **changes: Any) -> Trial:
    """A trial of five tasks, two digits each, under the protocol of the method's family."""
    kind = "class_incremental" if is_supervised(name) else "online_ssl"
    layers = [protocol.protocol_file(kind, where="tests"), SMALL, PROTOCOLS[kind], changes]
    spec = TrialSpec(
        method=plugins.component("method", name, scaled(name), where="tests"),
        dataset=Component("digits", {}),
        num_tasks=NUM_TASKS,
        distribution="regular",
        protocol=protocol.resolve(protocol.merge(layers), where="tests"),
        seed=seed,
    )
    assert protocol.unsuitable(spec) is None
    return Trial(spec, "tests", name, "digits", kind, Resources(gpu=DEVICE.type == "cuda"))


def scaled(name: str) -> dict[str, Any]:
    """What the method's YAML says of its own settings for so small a set as digits."""
    raw = read_yaml(CONFIGS / "method" / f"{name}.yaml")
    block = raw.get("datasets", {}).get("digits", {})
    return {key: value for key, value in block.items() if key != "protocol"}


def tiny_run(name: str, **changes: Any) -> TrialRun:
    """A trial that has not begun; its method is freshly built."""
    return TrialRun(tiny_trial(name, **changes), DATA, DEVICE)


def finish(run: TrialRun, notify: Callable[[Progress], None] = lambda _: None) -> list[Row]:
    """Train and measure to the end; checkpoints go to a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return run.run(CheckpointFolder(Path(folder)), notify, started="now")


def numbers(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Every stored value that has to be the same when a trial is run again."""
    return [
        (r.after_task, r.on_task, r.evaluator, r.metric, r.condition, r.value, r.n, r.samples_seen)
        for r in rows
        if r.metric not in UNREPEATABLE
    ]


@dataclass(frozen=True)
class Trained:
    """What a finished trial leaves behind."""

    run: TrialRun
    rows: list[Row]
    state: Mapping[str, Any]
    steps: list[Losses]
    seen: list[list[Batch]]


@cache
def trained(name: str) -> Trained:
    """An undisturbed trial of `name`; shared, so that nobody may train its method any further."""
    run = tiny_run(name)
    recorder = Recorder(run.method)
    run.method = recorder
    rows = finish(run)
    run.method = recorder.method
    state = copy.deepcopy(run.method.state_dict())
    return Trained(run, rows, state, recorder.steps, recorder.seen)


class Recorder(Method):
    """Passes everything on to a method and keeps what it was given and what it gave back."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.needs = method.needs
        self.predicts = method.predicts
        self.seen: list[list[Batch]] = []
        self.steps: list[Losses] = []

    def learn_task(self, task: TaskView, batches: Batches) -> Iterator[Losses]:
        self.seen.append([])
        for losses in self.method.learn_task(task, RecordedBatches(batches, self.seen[-1])):
            self.steps.append(losses)
            yield losses

    def finite(self) -> bool:
        return self.method.finite()

    @property
    def measurable(self) -> bool:
        return self.method.measurable

    def begin_task(self, task: TaskView) -> None:
        self.method.begin_task(task)

    def end_task(self, task: TaskView) -> None:
        self.method.end_task(task)

    def observe(self, batch: Batch) -> Losses:
        return self.method.observe(batch)

    def embed(self, x: Tensor) -> Tensor:
        return self.method.embed(x)

    def predict(self, x: Tensor, task: int | None = None) -> Tensor:
        return self.method.predict(x, task)

    def class_logits(self, x: Tensor) -> Tensor:
        return self.method.class_logits(x)

    def class_attention(self, x: Tensor, y: Tensor) -> Tensor | None:
        return self.method.class_attention(x, y)

    def recalled(self, per_task: int) -> Sequence[Recalled]:
        return self.method.recalled(per_task)

    def memory(self) -> dict[str, int]:
        return self.method.memory()

    def parameters(self) -> int:
        return self.method.parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.method.load_state_dict(state)


class RecordedBatches:
    """A stream that notes the batches drawn from it."""

    def __init__(self, batches: Batches, drawn: list[Batch]) -> None:
        self.batches = batches
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def epochs(self) -> int:
        return self.batches.epochs

    @property
    def milestones(self) -> tuple[int, ...]:
        return self.batches.milestones

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.drawn.append(batch)
            yield batch


def view(run: TrialRun, position: int) -> RevealedTask:
    """A task as the trial's method may see it."""
    return RevealedTask(run.scenario, run.scenario.tasks[position], run.method.needs, Tally())


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor, number and word of a state, with the keys that lead there."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from leaves(value, f"{path}.{i}")
    else:
        yield path, state


def difference(first: Any, second: Any) -> str | None:
    """Where two states differ in any bit, or None."""
    ours, theirs = dict(leaves(first)), dict(leaves(second))
    if ours.keys() != theirs.keys():
        return f"keys {sorted(ours.keys() ^ theirs.keys())}"
    return next((path for path in ours if not _identical(ours[path], theirs[path])), None)


def _identical(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and first == second

"""Where the time of a training step goes, for each online self-supervised method.

Protocol online_ssl with `resnet_small` on 32 x 32 RGB images, through the trial's own stream: 10
images and 128 replayed ones a step, or as many as the method takes. First a memory is filled, that
of CLIMB, which lets go of images all the time, up to 95 %: after one mini-batch of training the
stream passes the method's hooks without steps, which puts images and features where training
would. Then the last task begins, so that alignment with an earlier network has one. Columns are
medians over mini-batches, of 3 steps each, with what is done once a mini-batch:

- network: calls of modules (also those that embed images for a memory), losses, and `backward`;
- optimizer: its step, `zero_grad`, and what follows it, such as moving averages;
- augmentation: `Context.augment`;
- stream: drawing the batch;
- buffer: all else, that is the memory and bookkeeping;
- overhead: the last three together. The optimizer counts as the network's.

On a CPU the time is that of the process, of which other work on the machine takes none. On a GPU
every section waits for the device, so that steps take longer than in a trial. Run
`python -m benchmarks.step_split [method ...] [--device cpu|cuda]` from the repository.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Final, ParamSpec, TypeVar, final
from unittest.mock import patch

import torch
from torch import Tensor, nn

from harness.data.shelf import data_root
from harness.data.stream import RevealedTask
from harness.device import reproducible, synchronize
from harness.grid import expand
from harness.spec import Trial
from harness.suite import load_suite
from harness.trial import TrialRun
from methods import registry
from methods.base import Batch, Batches, Signal
from methods.learners import SelfSupervisedMethod

SECTIONS: Final = ("network", "optimizer", "augmentation", "stream")
COLUMNS: Final = (*SECTIONS, "buffer", "overhead")
OVERHEAD: Final = ("augmentation", "stream", "buffer")
# 72 mini-batches a task: four tasks fill a buffer of 2000 images, the fifth is measured.
SUITE: Final = """
protocol: online_ssl
datasets: [{name: glyphs100_easy, set: {classes: 20, per_class: 200}}]
num_tasks: [5]
seeds: [0]
set: {backbone: resnet_small}
"""
WARM_UP, MEASURED = 2, 9  # mini-batches

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment, and the seconds that each section had taken by then."""

    at: float
    taken: dict[str, float]


@final
class Clock:
    """Adds up the time in sections; of nested ones the outermost counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.taken: dict[str, float] = dict.fromkeys(SECTIONS, 0.0)
        self._inside = False

    def now(self) -> float:
        """Seconds: of this process on a CPU; of the clock, after the work given to it, on a GPU."""
        if self.device.type == "cpu":
            return time.process_time()
        synchronize(self.device)
        return time.perf_counter()

    def mark(self) -> Mark:
        return Mark(self.now(), dict(self.taken))

    def section(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, its time counted."""

        @wraps(call)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            if self._inside:
                return call(*args, **kwargs)
            self._inside = True
            began = self.now()
            try:
                return call(*args, **kwargs)
            finally:
                self.taken[name] += self.now() - began
                self._inside = False

        return timed

    def loss(self, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, its time counted as the network's if a gradient flows through its result."""

        @wraps(call)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            began, before = self.now(), sum(self.taken.values())
            found = call(*args, **kwargs)
            if not self._inside and isinstance(found, Tensor) and found.requires_grad:
                inner = sum(self.taken.values()) - before
                self.taken["network"] += self.now() - began - inner
            return found

        return timed


@final
class TimedBatches:
    """The first batches of a stream, with a mark before each and one after the last."""

    def __init__(self, batches: Batches, count: int, clock: Clock) -> None:
        self.batches = batches
        self.count = count
        self.clock = clock
        self.marks: list[Mark] = []

    def __len__(self) -> int:
        return self.count

    @property
    def epochs(self) -> int:
        return self.batches.epochs

    @property
    def milestones(self) -> tuple[int, ...]:
        return self.batches.milestones

    def __iter__(self) -> Iterator[Batch]:
        draw = self.clock.section("stream", partial(next, iter(self.batches)))
        for _ in range(self.count):
            self.marks.append(self.clock.mark())
            yield draw()
        self.marks.append(self.clock.mark())


def trials(methods: Sequence[str]) -> list[Trial]:
    """A trial of each method, with the settings of its file."""
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "step_split.yaml"
        suite.write_text(f"{SUITE}methods: [{', '.join(methods)}]\n")
        found, skips = expand(load_suite(suite))
    if skips:
        raise SystemExit(f"{skips[0].title}: {skips[0].reason}")
    return found


def fill(run: TrialRun, method: SelfSupervisedMethod) -> None:
    """One mini-batch as in training, then others without passes, until the memory stays as it is.

    At least as many images as the buffer holds, at most those of all tasks but the last.
    """
    stream = chain.from_iterable(run._batches(task) for task in run.scenario.tasks[:-1])
    method.observe(next(stream))
    for seen, batch in enumerate(stream, start=1):
        before = method.memory()
        method.before_passes(batch)
        method.remember(batch)
        if seen * len(batch.x) >= run.settings.buffer_size and method.memory() == before:
            return


@contextmanager
def timed(method: SelfSupervisedMethod, clock: Clock) -> Generator[None]:
    """Count the time of everything that a method calls, without a change to the method."""
    network, optimizer = partial(clock.section, "network"), partial(clock.section, "optimizer")
    objective, module = method.objective, sys.modules[type(method).__module__]
    augment = clock.section("augmentation", method.ctx.augment)
    with ExitStack() as patches:

        def put(owner: object, name: str, call: object) -> None:
            patches.enter_context(patch.object(owner, name, call))

        put(method, "ctx", replace(method.ctx, augment=augment))
        put(nn.Module, "__call__", network(nn.Module.__call__))
        put(Tensor, "backward", network(Tensor.backward))
        for name in ("step", "zero_grad"):
            put(method.optimizer, name, optimizer(getattr(method.optimizer, name)))
        put(method, "after_step", optimizer(method.after_step))
        # Losses that are no calls of modules: an objective's other methods, a method's functions.
        for name in vars(type(objective)).keys() - {"__init__", "forward", "after_step"}:
            if inspect.isfunction(vars(type(objective))[name]):
                put(objective, name, network(getattr(objective, name)))
        for name, function in inspect.getmembers(module, inspect.isfunction):
            put(module, name, clock.loss(function))
        yield


def marks(run: TrialRun) -> list[Mark]:
    """Marks around mini-batches of the last task, once the buffer is full."""
    method, task = run.method, run.scenario.tasks[-1]
    assert isinstance(method, SelfSupervisedMethod)
    fill(run, method)
    run.random.start_task(task.position)
    view = RevealedTask(run.scenario, task, method.needs, run.position.tally)
    if Signal.BOUNDARIES in method.needs:
        method.begin_task(view)
    clock = Clock(run.device)
    batches = TimedBatches(run._batches(task), WARM_UP + MEASURED, clock)
    with timed(method, clock):
        deque(method.learn_task(view, batches), maxlen=0)
    return batches.marks[WARM_UP:]


def shares(run: TrialRun) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step, and which share of it each column takes; medians."""
    steps: list[float] = []
    columns: dict[str, list[float]] = {column: [] for column in COLUMNS}
    for start, stop in pairwise(marks(run)):
        whole = stop.at - start.at
        part = {name: (stop.taken[name] - start.taken[name]) / whole for name in SECTIONS}
        part["buffer"] = 1 - sum(part.values())
        part["overhead"] = sum(part[name] for name in OVERHEAD)
        steps.append(whole / run.settings.passes * 1e3)
        for column in COLUMNS:
            columns[column].append(part[column])
    return median(steps), {column: median(values) for column, values in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a training step goes.")
    known = registry.names(("methods.self_supervised",))
    parser.add_argument("methods", nargs="*", metavar="method", help=", ".join(known))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    print(f"torch {torch.__version__}, {device}, one CPU thread, resnet_small")
    print(f"{'method':12} {'ms/step':>9}" + "".join(f"{name:>14}" for name in COLUMNS))
    for trial in trials(chosen.methods or known):
        with reproducible(threads=1):
            step, found = shares(TrialRun(trial, data_root(), device))
        row = "".join(f"{found[column]:14.1%}" for column in COLUMNS)
        print(f"{trial.label:12} {step:9.1f}{row}", flush=True)


if __name__ == "__main__":
    main()

"""Training time of the class-incremental methods against finetuning, and its own against a loop.

Fashion-MNIST in 5 tasks, one epoch of 60,000 images, SGD 0.03 at batch 64, replay 64 of a buffer of
500, no augmentation, `mlp` (or `--backbone cnn`, which is small: widths 16, 32, 64). The bare loop
trains the same network on tensors that are normalised before the clock starts. It and finetuning
run alternately, `--repeats` times, and their medians count; the others run once, between two runs
of finetuning. Evaluation is left out. On a CPU the time is that of the process, on one thread, of
which other work on the machine takes none. Run
`python -m benchmarks.class_incremental_speed [method ...] [--backbone mlp|cnn]`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, cast, final

import torch
from torch.nn import functional as F

from harness.data.shelf import data_root
from harness.device import reproducible, synchronize
from harness.errors import UserError
from harness.grid import expand
from harness.spec import Trial
from harness.suite import load_suite
from harness.trial import TrialRun
from methods import registry
from methods.learners import ClassifierMethod

SUITE: Final = """
protocol: class_incremental
methods: [{method}]
datasets: [{{name: fashion_mnist, set: {{per_class: {per_class}}}}}]
num_tasks: 5
seeds: [0]
set:
  epochs: 1
  batch_size: 64
  replay_batch: 64
  buffer_size: 500
  optimizer: sgd
  lr: 0.03
  augmentation: none
  backbone: {backbone}
"""
BACKBONES: Final = {
    "mlp": "{name: mlp}",
    "cnn": "{name: cnn, widths: [16, 32, 64]}",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    methods: list[str]
    backbone: str
    device: torch.device
    per_class: int
    repeats: int


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    with reproducible(1):
        bare, base = _baselines(options)
        print(f"bare loop over ready tensors {bare:8.2f} s", flush=True)
        print(f"finetune                     {base:8.2f} s  {base / bare:.2f} times the loop")
        for name in options.methods:
            print(f"{name:<28} {_line(name, base, options)}", flush=True)


def _line(name: str, base: float, options: Options) -> str:
    try:
        trial = _trial(name, options)
    except UserError as error:
        return f"left out: {str(error).rpartition('method ')[2]}"
    seconds = _learn(trial, options)
    again = _learn(_trial("finetune", options), options)
    return f"{seconds:8.2f} s  {seconds / median([base, again]):.2f} times finetune"


def _baselines(options: Options) -> tuple[float, float]:
    """Median seconds of the bare loop and of finetuning, run alternately."""
    loop = _bare_loop(_built(_trial("finetune", options), options), options)
    times = [(loop(), _learn(_trial("finetune", options), options)) for _ in range(options.repeats)]
    bare, base = zip(*times, strict=True)
    return median(bare), median(base)


def _bare_loop(run: TrialRun, options: Options) -> Callable[[], float]:
    """What finetuning computes, with nothing around it; the images are normalised already."""
    train, method = run.scenario.dataset.train, cast(ClassifierMethod, run.method)
    images = torch.cat([method.ctx.normalize(x) for x in train.x.split(4096)])
    net, tasks = method.net, [task.train for task in run.scenario.tasks]

    def loop() -> float:
        clock = Clock(options.device)
        for task in tasks:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.03)
            order = task[torch.randperm(len(task))].to(images.device)
            for rows in order.split(64):
                loss = F.cross_entropy(net(images[rows]), train.y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        return clock.seconds()

    return loop


def _learn(trial: Trial, options: Options) -> float:
    """Seconds of training, as a trial does it, without loading and evaluation."""
    run = _built(trial, options)
    clock = Clock(options.device)
    for task in run.scenario.tasks:
        run._learn(task)  # pyright: ignore[reportPrivateUsage]
    return clock.seconds()


def _built(trial: Trial, options: Options) -> TrialRun:
    return TrialRun(trial, data_root(None), options.device)


def _trial(name: str, options: Options) -> Trial:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speed.yaml"
        chosen = {"method": name, "per_class": options.per_class}
        path.write_text(SUITE.format(**chosen, backbone=BACKBONES[options.backbone]))
        return expand(load_suite(path))[0][0]


@final
class Clock:
    """Time since it was made: of the process on a CPU, of the wall on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._now = time.perf_counter if device.type == "cuda" else time.process_time
        synchronize(device)
        self._begin = self._now()

    def seconds(self) -> float:
        synchronize(self._device)
        return self._now() - self._begin


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.class_incremental_speed")
    parser.add_argument("methods", nargs="*", help="default: all of methods/supervised")
    parser.add_argument("--backbone", choices=[*BACKBONES], default="mlp")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--per-class", type=int, default=6000, help="training images a class")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    family = sorted(registry.where(("methods.supervised",)))
    return Options(
        methods=given.methods or [name for name in family if name != "finetune"],
        backbone=given.backbone,
        device=torch.device(given.device),
        per_class=given.per_class,
        repeats=given.repeats,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

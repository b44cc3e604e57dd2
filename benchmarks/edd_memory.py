"""What the memories of EDD add to the peak memory of a training step.

The step of LwF-MC, which has the same base loss and a teacher, against that of EDD, whose maps are
read from memories besides: batch 128 of RGB images of 64 x 64 pixels, Mammoth's ResNet-18, Adam,
and memories of 1,677 slots, as many as 1,000 grow to in 20 tasks. On a GPU the peak is that of
the memory allocated to tensors in a second step; on a CPU the largest resident memory of a process
of its own, made up of one step. Run `python -m benchmarks.edd_memory [--device cpu|cuda]` from the
repository; on two CPU cores it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from harness.seeds import Randomness
from methods.backbones import mammoth_resnet18
from methods.base import Backbone, Batch, Batches, Context, Objective, Training
from methods.learners import ClassifierMethod
from methods.supervised import edd, lwf_mc

SHAPE: Final = (3, 64, 64)
TASKS, A_TASK = 21, 10  # tasks, and classes of each; memories have grown 20 times in the last
METHODS: Final = ("lwf_mc", "edd")
GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class EmptyTask:
    """A task whose images nobody asks for."""

    position: int

    @property
    def data(self) -> Batch:
        raise NotImplementedError

    @property
    def classes(self) -> range:
        return range(self.position * A_TASK, (self.position + 1) * A_TASK)

    def batches(self, size: int, *, epochs: int, rng: torch.Generator) -> Batches:
        del size, epochs, rng
        return _NoBatches()


class _NoBatches(tuple[Batch, ...]):
    """A stream without images."""

    epochs: int = 0
    milestones: tuple[int, ...] = ()


def context(batch: int, device: torch.device) -> Context:
    """What a trial on TinyImageNet would give, without its images and augmentation."""
    random = Randomness(0)

    def backbone(*purpose: str) -> Backbone:
        make = mammoth_resnet18.build
        return random.weights(lambda: make(mammoth_resnet18.Config(), SHAPE), "backbone", *purpose)

    def objective(backbone: Backbone) -> Objective:
        raise NotImplementedError

    def normalize(x: Tensor) -> Tensor:
        return x.float() / 255 - 0.5

    return Context(
        backbone=backbone,
        objective=objective,
        image_shape=SHAPE,
        num_classes=TASKS * A_TASK,
        num_tasks=TASKS,
        augment=lambda x, _: normalize(x),
        normalize=normalize,
        device=device,
        random=random,
        training=Training(optimizer="adam", lr=1e-3, batch_size=batch, fresh_optimizer=True),
    )


def in_last_task(name: str, batch: int, device: torch.device) -> ClassifierMethod:
    """A method that has been through all tasks but the last, which begins."""
    ctx = context(batch, device)
    if name == "edd":
        method: ClassifierMethod = edd.EDD(edd.Config(), ctx)
    else:
        method = lwf_mc.LwFMC(lwf_mc.Config(), ctx)
    for position in range(TASKS):
        method.begin_task(EmptyTask(position))
        if position < TASKS - 1:
            method.end_task(EmptyTask(position))
    return method


def images(batch: int, device: torch.device) -> Batch:
    """Noise, with labels of the last task."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (batch, *SHAPE), generator=rng, dtype=torch.uint8)
    y = torch.randint((TASKS - 1) * A_TASK, TASKS * A_TASK, (batch,), generator=rng)
    return Batch(x.to(device), y.to(device), torch.arange(batch))


def peak(name: str, batch: int, device: torch.device) -> tuple[int, float, list[int]]:
    """Bytes at the peak of a step, seconds that the step takes, and slots of each memory."""
    method, data = in_last_task(name, batch, device), images(batch, device)
    if device.type == "cuda":
        method.observe(data)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    losses = method.observe(data)
    assert all(loss.isfinite() for loss in losses.values())
    seconds = time.perf_counter() - start
    slots = [len(m) for m in method.memories.all()] if isinstance(method, edd.EDD) else []
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(), seconds, slots
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, seconds, slots  # KiB on Linux


def alone(name: str, options: argparse.Namespace) -> tuple[int, float, list[int]]:
    """`peak` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.edd_memory", "--only", name]
    command += ["--device", options.device, "--batch", str(options.batch)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    nbytes, seconds, slots = json.loads(said)
    return nbytes, seconds, slots


def main() -> None:
    parser = argparse.ArgumentParser(description="What EDD's memories add to a step's peak memory.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--only", choices=METHODS, help="print that method's figures as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(peak(options.only, options.batch, torch.device(options.device))))
        return
    print(f"torch {torch.__version__}, {options.device}, batch {options.batch} of 64 x 64 images")
    peaks: list[int] = []
    for name in METHODS:
        nbytes, seconds, slots = alone(name, options)
        peaks.append(nbytes)
        told = f", slots {slots}" if slots else ""
        print(f"{name:8} peak {nbytes / GB:6.2f} GB, step {seconds:6.1f} s{told}", flush=True)
    print(f"memories add {(peaks[1] - peaks[0]) / GB:.2f} GB")


if __name__ == "__main__":
    main()

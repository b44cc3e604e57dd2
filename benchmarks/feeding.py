"""How fast images of a large data set reach a training step, and what a step then has to wait.

Makes a file of random uint8 images (N, 3, S, S) and reads batches of 128 in random order:

- resident: the images lie on the device;
- ahead: they stay in the file, mapped into memory, and are read by a thread a few batches ahead
  (`harness.data.residency`);
- direct: they are read and copied when they are asked for.

First nothing is done with a batch, then a ResNet-18 makes an optimizer step with it. The file has
just been written, so that the system has it in memory: a disk is not measured. On a CPU "resident"
and "direct" are the same.

    python -m benchmarks.feeding --images 20000 --device cuda
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness import plugins
from harness.data import residency
from harness.data.base import Dataset, Split, Traits
from harness.data.residency import in_turn, placed
from harness.device import synchronize

BATCH, CLASSES, ROUNDS = 128, 100, 3
TRAITS = Traits((0.5,) * 3, (0.25,) * 3, flip=True)

Batches = Iterator[Tensor]


def mapped_images(path: Path, count: int, size: int) -> Tensor:
    """Random images in a file, mapped into memory."""
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 3, size, size))
    rng = np.random.default_rng(0)
    for start in range(0, count, 64):
        file[start : start + 64] = rng.integers(0, 256, file[start : start + 64].shape, np.uint8)
    file.flush()
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def direct(split: Split, order: Tensor) -> Batches:
    for rows in order.split(BATCH):
        yield split.images(rows)


def streamed(split: Split, order: Tensor) -> Batches:
    stops = range(BATCH, len(order), BATCH)
    yield from (x for _, x in in_turn(split, order, stops))


def training_step(device: torch.device, size: int) -> Callable[[Tensor], None]:
    """One optimizer step of a ResNet-18 on a batch, with made-up labels."""
    shape = (3, size, size)
    component = plugins.component("backbone", "resnet18", {}, where="benchmark")
    backbone = plugins.build("backbone", component, shape)
    net = torch.nn.Sequential(backbone, torch.nn.LazyLinear(CLASSES)).to(device)
    net(torch.zeros(2, *shape, device=device))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(x: Tensor) -> None:
        y = torch.arange(len(x), device=device) % CLASSES
        loss = F.cross_entropy(net(x.float() / 255), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def rate(
    make: Callable[[], Batches], step: Callable[[Tensor], None], device: torch.device
) -> float:
    """Images a second: the best of some rounds, the first of which warms up."""
    best = 0.0
    for number in range(ROUNDS + 1):
        synchronize(device)
        start, count = time.perf_counter(), 0
        for x in make():
            step(x)
            count += len(x)
        synchronize(device)
        if number:
            best = max(best, count / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second that reach a training step")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=40, help="drawn in a round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    residency.LARGE = 0  # pyright: ignore[reportConstantRedefinition] - to read ahead on a CPU too
    with tempfile.TemporaryDirectory() as folder:
        x = mapped_images(Path(folder) / "x.npy", chosen.images, chosen.size)
        split = Split(x, torch.arange(len(x)) % CLASSES)
        dataset = Dataset("random", split, split, tuple(map(str, range(CLASSES))), TRAITS)
        away = placed(dataset, device, 0).train
        here = placed(dataset, device, 1 << 40).train
        rng = torch.Generator().manual_seed(0)
        order = torch.randint(len(x), (chosen.batches * BATCH,), generator=rng)
        steps: dict[str, Callable[[Tensor], None]] = {
            "nothing": lambda _: None,
            "a step of ResNet-18": training_step(device, chosen.size),
        }
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(f"torch {torch.__version__}, {name}, {chosen.threads} threads, {len(x):,} images")
        for done, step in steps.items():
            ways: dict[str, Callable[[], Batches]] = {
                "resident": lambda: direct(here, order),
                "ahead": lambda: streamed(away, order),
                "direct": lambda: direct(away, order),
            }
            for way, make in ways.items():
                print(f"{done:20} {way:9} {rate(make, step, device):10,.0f} images/s", flush=True)


if __name__ == "__main__":
    main()

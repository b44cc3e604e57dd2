"""What the memories of online methods cost per batch, and whether it grows with the stream.

Every memory holds 2,000 RGB images of 32 x 32 pixels and gets 10 a batch. What is timed, in seconds
of CPU, is all that happens to it in a batch: features of 3 x 128 replayed images written anew where
the method does that, and the insertion. Networks take no part: features are pixels. Run
`python -m benchmarks.buffers [IMAGES]` from the repository, a few minutes; the figures are those
after a stream of so many images, and of twice and four times as many. Centroids gather images
slowly: that memory is full later than the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from methods.parts.buffers import Buffer, SlotPolicy, fifo, reservoir
from methods.parts.centroid_memory import CentroidMemory
from methods.parts.min_redundancy import MinRedBuffer
from methods.parts.part_and_select import part_and_select
from methods.self_supervised.climb import Config

CAPACITY, BATCH, PASSES, REPLAY = 2000, 10, 3, 128
SHAPE, CLASSES, CLASSES_A_TASK = (3, 32, 32), 100, 5
PROJECTION, FEATURES = 2048, 512  # of ResNet-18 and the projector of online self-supervision
STREAM, LENGTHS = 2500, (1, 2, 4)
TIMED = 50  # batches before each length, of which the mean is given
CPU = torch.device("cpu")


class Memory(Protocol):
    """A memory as its method uses it in a stream batch."""

    @property
    def nbytes(self) -> int: ...
    def step(self, x: Tensor, rng: torch.Generator) -> None: ...


def project(x: Tensor, dim: int = PROJECTION) -> Tensor:
    """Stands for a network: pixels around 0, (B, dim)."""
    return x.flatten(1)[:, :dim].float() - 127.5


class Slots:
    """A buffer of images with slots by a policy, and with projections if so wanted."""

    def __init__(self, policy: SlotPolicy, *, projections: bool) -> None:
        self.buffer = Buffer(CAPACITY, policy, torch.Generator().manual_seed(1), CPU)
        self.projections = projections

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes

    def step(self, x: Tensor, rng: torch.Generator) -> None:
        if not self.projections:
            self.buffer.add(x=x)
            return
        refresh(self.buffer, rng)
        self.buffer.add(x=x, z=project(x))


class MinRed:
    """MinRed's buffer: of the two most similar images the older goes."""

    def __init__(self) -> None:
        self.buffer = MinRedBuffer(CAPACITY, CPU)

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes

    def step(self, x: Tensor, rng: torch.Generator) -> None:
        refresh(self.buffer, rng)
        self.buffer.add(x=x, z=project(x))


class Selection:
    """SCALE's memory: images that cover the space of features, chosen anew for every batch."""

    def __init__(self) -> None:
        self.x = torch.empty((0, *SHAPE), dtype=torch.uint8)

    @property
    def nbytes(self) -> int:
        return self.x.nbytes

    def step(self, x: Tensor, rng: torch.Generator) -> None:
        pool = torch.cat([self.x, x])
        self.x = pool[part_and_select(project(pool, FEATURES), CAPACITY, rng=rng)]


class Centroids:
    """CLIMB's memory, with the consolidations that become due."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(1)
        self.memory = CentroidMemory(
            Config().rules(), capacity=CAPACITY, slack=2 * BATCH, rng=rng, device=CPU
        )

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def step(self, x: Tensor, rng: torch.Generator) -> None:
        for _ in range(PASSES):
            replayed = self.memory.draw(REPLAY, rng)
            if replayed is not None:
                self.memory.drift(replayed, project(replayed.x))
        self.memory.add(x, project(x))
        if self.memory.full:
            self.memory.consolidate(project)


MEMORIES: dict[str, Callable[[], Memory]] = {
    "reservoir": lambda: Slots(reservoir, projections=False),
    "fifo": lambda: Slots(fifo, projections=False),
    "fifo, projections": lambda: Slots(fifo, projections=True),
    "min-redundancy": MinRed,
    "part and select": Selection,
    "centroids": Centroids,
}


def refresh(buffer: Buffer | MinRedBuffer, rng: torch.Generator) -> None:
    """Move the projections of replayed images, as every pass of a method does."""
    for _ in range(PASSES if len(buffer) else 0):
        rows = buffer.draw(REPLAY, rng)
        z = buffer.take(rows)["z"]
        buffer.put(rows, z=torch.lerp(z.roll(1, 0), z, 0.9))


def images(count: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Batches of images that resemble others of their class; classes come task by task."""
    prototypes = torch.randint(0, 128, (CLASSES, *SHAPE), generator=rng)
    tasks, batches = CLASSES // CLASSES_A_TASK, count // BATCH
    for number in range(batches):
        first = number * tasks // batches * CLASSES_A_TASK
        which = first + torch.randint(0, CLASSES_A_TASK, (BATCH,), generator=rng)
        noise = torch.randint(0, 128, (BATCH, *SHAPE), generator=rng)
        yield (prototypes[which] + noise).to(torch.uint8)


def measure(make: Callable[[], Memory], stream: int) -> Iterator[tuple[float, int]]:
    """Mean seconds of a batch and bytes held, when streams of each length end."""
    memory, rng = make(), torch.Generator().manual_seed(0)
    seconds: list[float] = []
    for x in images(max(LENGTHS) * stream, rng):
        start = time.process_time()
        memory.step(x, rng)
        seconds.append(time.process_time() - start)
        if len(seconds) in [length * stream // BATCH for length in LENGTHS]:
            yield sum(seconds[-TIMED:]) / TIMED, memory.nbytes


def main() -> None:
    stream = int(sys.argv[1]) if len(sys.argv) > 1 else STREAM
    if stream < CAPACITY + TIMED * BATCH:
        sys.exit(f"a stream of {stream} images does not fill the buffer before it is timed")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, CPU, one thread, {CAPACITY} images, batches of {BATCH}")
    print(f"{'images seen':20}" + "".join(f"{length * stream:>22,}" for length in LENGTHS))
    for name, make in MEMORIES.items():
        print(f"{name:20}", end="")
        for seconds, nbytes in measure(make, stream):
            print(f"{seconds * 1e3:9.2f} ms {nbytes / 1e6:7.2f} MB", end="", flush=True)
        print()


if __name__ == "__main__":
    main()

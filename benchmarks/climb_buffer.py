"""How long CLIMB's memory takes to add 10 images, to draw 128, and to move centroids by them.

Default sizes (100 + 60 centroids of 2048 dimensions, 2500 RGB images of 32 x 32), filled by a
stream of clusters. Run `python -m benchmarks.climb_buffer [cpu|cuda]` from the repository.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from methods.parts.centroid_memory import CentroidMemory
from methods.self_supervised.climb import Config

CAPACITY, BATCH, REPLAY, PASSES = 2500, 10, 128, 3
DIM, SHAPE, CLUSTERS, BATCHES = 2048, (3, 32, 32), 80, 1500


class Stream:
    """Batches of images and embeddings around cluster centres that come and go."""

    def __init__(self, device: str) -> None:
        self.rng = torch.Generator().manual_seed(0)
        self.device = device
        self.centres = torch.randn(CLUSTERS, DIM, generator=self.rng)
        self.x = torch.randint(0, 256, (BATCH, *SHAPE), generator=self.rng, dtype=torch.uint8)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and embeddings (B, D) on the device, of 20 clusters of late."""
        late = torch.randint(20, (BATCH,), generator=self.rng) + step // 50
        noise = torch.randn(BATCH, DIM, generator=self.rng)
        z = self.centres[late % CLUSTERS] + 0.7 * noise
        return self.x.to(self.device), z.to(self.device)


def seconds(call: Callable[[], object], device: str) -> tuple[float, float]:
    """How long a call takes, the device's work included, and how long the CPU works on it."""
    start, working = time.perf_counter(), time.process_time()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - working


def measure(device: str) -> dict[str, list[tuple[float, float]]]:
    """`seconds` of every call while the memory fills and consolidates."""
    stream = Stream(device)
    slot_rng, draw_rng = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    rules, where = Config().rules(), torch.device(device)
    held = CentroidMemory(rules, capacity=CAPACITY, slack=BATCH, rng=slot_rng, device=where)
    took: dict[str, list[tuple[float, float]]] = {
        "draw": [],
        "drift": [],
        "add": [],
        "consolidate": [],
    }

    def embed(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :DIM].float()  # next to nothing: the network's time is not ours

    for step in range(BATCHES):
        x, z = stream.batch(step)
        for _ in range(PASSES):
            took["draw"].append(seconds(lambda: held.draw(REPLAY, draw_rng), device))
            if (found := held.draw(REPLAY, draw_rng)) is not None:
                owned = torch.tensor(found.owners) % CLUSTERS
                near = stream.centres[owned].to(device)
                took["drift"].append(seconds(lambda d=found, n=near: held.drift(d, n), device))
        took["add"].append(seconds(lambda x=x, z=z: held.add(x, z), device))
        if held.full:
            took["consolidate"].append(seconds(lambda: held.consolidate(embed), device))
    return took


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {device}, one CPU thread, {BATCHES} batches of {BATCH}")
    for name, times in measure(device).items():
        late = times[len(times) // 2 :]
        if late:
            wall, cpu = (sorted(column)[len(late) // 2] * 1e3 for column in zip(*late, strict=True))
            print(f"{name:12} median {wall:8.3f} ms, of which CPU {cpu:8.3f} ms")


if __name__ == "__main__":
    main()

"""How long each augmentation takes for a batch of 138 RGB images of 32 x 32 pixels.

138 is the batch of online self-supervised training: 10 images of the stream and 128 replayed ones;
a step augments two views. Run `python -m benchmarks.augment_speed [cpu|cuda]` from the repository.
"""

from __future__ import annotations

import sys
import time

import torch

from harness import plugins
from harness.data.base import Traits

BATCH = 138
SHAPE = (3, 32, 32)
TRAITS = Traits((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), flip=True, crop_padding=4, crop_mode="reflect")
REPEATS, CALLS = 7, 30


def seconds_per_batch(name: str, device: str) -> float:
    """The median over repeats, each the mean of some calls, after a warm-up."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (BATCH, *SHAPE), generator=rng, dtype=torch.uint8).to(device)
    default = plugins.component("augmentation", name, {}, where="benchmark")
    views = plugins.build("augmentation", default, TRAITS, SHAPE)
    means: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        for _ in range(CALLS):
            views(x, rng)
        if device != "cpu":
            torch.cuda.synchronize()
        means.append((time.perf_counter() - start) / CALLS)
    return sorted(means[1:])[REPEATS // 2]


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {device}, one CPU thread, batch {BATCH} of {SHAPE}")
    for name in plugins.names("augmentation"):
        seconds = seconds_per_batch(name, device)
        print(f"{name:14} {seconds * 1e3:8.3f} ms/batch {BATCH / seconds:12,.0f} images/s")


if __name__ == "__main__":
    main()

"""How long range coding of BrainCL's cues takes, and how near their bits are to the model's.

Cues of the paper's size (192 x 14 x 14, images of 224 pixels) and of a small one (16 x 7 x 7,
images of 28), drawn from the distributions of an entropy model whose channels differ in width.
One thread. Run `python -m benchmarks.cue_coder` from the repository.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from methods.parts.cue_book import CueBook
from methods.parts.entropy_model import PiecewiseLinearCDF

SHAPES = {(192, 14, 14): (300, 224), (16, 7, 7): (5000, 28)}  # cue: how many, side of the image
SUPPORT = 32


def drawn(model: PiecewiseLinearCDF, count: int, side: int) -> torch.Tensor:
    """Cues (count, C, side, side), int32, each channel by the model's own probabilities."""
    rng = np.random.default_rng(0)
    channels = len(model.logits)
    ends = torch.full((channels,), SUPPORT)
    symbols = np.arange(-SUPPORT, SUPPORT + 1)
    planes = [
        rng.choice(symbols, (count, side, side), p=p / p.sum())
        for p in model.symbol_probabilities(-ends, ends)
    ]
    return torch.from_numpy(np.stack(planes, 1).astype(np.int32))


def widened(channels: int) -> PiecewiseLinearCDF:
    """An entropy model from narrow to wide channels."""
    model = PiecewiseLinearCDF(channels, SUPPORT)
    scale = torch.linspace(0.1, 3, channels)[:, None]
    with torch.no_grad():
        model.logits.copy_(-torch.arange(-SUPPORT, SUPPORT + 1).abs() / scale)
    return model


def main() -> None:
    torch.set_num_threads(1)
    for (channels, side, _), (count, pixels) in SHAPES.items():
        model = widened(channels)
        cues = drawn(model, count, side)
        labels = torch.zeros(count, dtype=torch.int64)
        begun = time.perf_counter()
        book = CueBook.encode(
            cues,
            model.symbol_probabilities,
            labels,
            torch.arange(count),
            image_size=(pixels, pixels),
            network="",
        )
        encoded = time.perf_counter()
        decoded = book.decode()
        ended = time.perf_counter()
        if not np.array_equal(decoded, cues.numpy()):
            raise SystemExit("a cue came back otherwise")
        with torch.no_grad():
            expected = model.bits(cues.float()).double().mean().item()
        stored = book.bits().double().mean().item()
        print(
            f"{channels}x{side}x{side}: encode and check {1e3 * (encoded - begun) / count:.2f} ms, "
            f"decode {1e3 * (ended - encoded) / count:.2f} ms a cue; {stored:.0f} bits stored, "
            f"{expected:.0f} expected ({stored / expected - 1:+.2%})"
        )


if __name__ == "__main__":
    main()

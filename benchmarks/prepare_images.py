"""How much slower is `data prepare` than decoding pictures and throwing them away?

Makes a tree in the layout of ImageNet-100, of as many JPEG files as asked for: photographs of
about 500x375 pixels and 110 kB, as ILSVRC's are on average, drawn from smooth noise. Some hundred
differ; the others are copies of them under other names. Then, with the same number of processes:

- decode: every file is decoded to RGB, at its own size;
- resize: and scaled to the square that is stored, which takes as long again;
- prepare: what `data prepare imagenet100` does, from listing the files to the manifest.

Each runs `--rounds` times in turn, on files that the system has cached, and the median counts.

    python benchmarks/prepare_images.py --images 20000
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 100
DISTINCT = 300
WIDTH, HEIGHT, QUALITY = 500, 375, 92


def make_tree(root: Path, images: int) -> None:
    """Write the files below `root`/imagenet, a test image for each class."""
    pictures = [_jpeg(number) for number in range(min(DISTINCT, images))]
    for part, count in (("train", images), ("val", CLASSES)):
        for number in range(count):
            folder = root / "imagenet" / part / f"n{number % CLASSES:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06d}.JPEG").write_bytes(pictures[number % len(pictures)])


def _jpeg(number: int) -> bytes:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    grain = rng.normal(0, 9, (HEIGHT, WIDTH, 1))
    buffer = io.BytesIO()
    image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def decode(paths: Sequence[str], size: int) -> None:
    """Decode files, scale them if `size` is not 0, and keep nothing."""
    for path in paths:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        if size:
            whole.resize((size, size), Image.Resampling.BILINEAR)


def bare(paths: Sequence[str], size: int, workers: int) -> None:
    """Decode all files by so many processes."""
    chunks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(decode, size=size), chunks))


def prepare(root: Path, size: int, workers: int) -> None:
    from harness.data import shelf
    from harness.data.sets.imagenet100 import Config

    shelf.prepare("imagenet100", Config(classes=CLASSES, size=size), root, workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of data prepare against decoding")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="where to make the tree; default: a new folder")
    chosen = parser.parse_args()
    root: Path = chosen.root or Path(tempfile.mkdtemp(prefix="prepare-images-"))
    make_tree(root, chosen.images)
    paths = [str(path) for path in sorted((root / "imagenet").rglob("*.JPEG"))]
    volume = sum(Path(path).stat().st_size for path in paths)
    print(f"{len(paths):,} files of {volume / len(paths) / 1e3:.0f} kB, {chosen.workers} processes")
    ways: dict[str, Callable[[], None]] = {
        "decode": partial(bare, paths, 0, chosen.workers),
        "resize": partial(bare, paths, chosen.size, chosen.workers),
        "prepare": partial(prepare, root, chosen.size, chosen.workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.rounds):
        for name, run in ways.items():
            shutil.rmtree(root / "prepared", ignore_errors=True)
            start = time.perf_counter()
            run()
            rates[name].append(len(paths) / (time.perf_counter() - start))
    median = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in median.items():
        shown = ", ".join(f"{one:,.0f}" for one in rates[name])
        print(f"{name:8} {rate:8,.0f} images/s  ({shown})")
    print(f"prepare reaches {median['prepare'] / median['decode']:.0%} of decode", end=", ")
    print(f"{median['prepare'] / median['resize']:.0%} of resize")
    if chosen.root is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()

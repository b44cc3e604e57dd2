"""TinyImageNet as the arrays that Mammoth fetches: 20 files of images and of labels a split.

github.com/aimagelab/mammoth, datasets/seq_tinyimagenet.py: `processed/x_train_01.npy` to
`x_train_20.npy`, `y_train_01.npy` and so on, likewise `val`; images (n, 64, 64, 3) of floats from 0
to 1, labels (n,). Deviation: 255 times a pixel is rounded; Mammoth cuts off what is behind the
point, which darkens some by one level. Its labels are taken to be the lines of `wnids.txt`, as its
list of names suggests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.base import DataError, Split, check_labels, first_of_each_class
from harness.data.source import Rows, SplitSource, Stored

SIDE: Final = 64  # of an image, in pixels
SHARDS: Final = range(1, 21)
BLOCK: Final = 500
"""Images read at once: 49 MB of doubles."""

Part = Literal["train", "val"]


def found(folder: Path) -> bool:
    """Whether all files are there."""
    return all(
        _file(folder, kind, part, number).is_file()
        for kind in ("x", "y")
        for part in ("train", "val")
        for number in SHARDS
    )


def split(folder: Path, part: str, classes: int, count: int | None) -> SplitSource:
    """The images of a part, or the first `count` of each class.

    Raises:
        DataError: if a file is not as published, or a class has no image.
    """
    shards = [_file(folder, "x", part, number) for number in SHARDS]
    labels = [
        _labels(_file(folder, "y", part, number), shard)
        for number, shard in zip(SHARDS, shards, strict=True)
    ]
    y = torch.from_numpy(np.concatenate(labels))
    check_labels(Split(y, y), classes, where=folder / "processed")
    # The place of each image stands for it, so that the chosen ones can be read later.
    chosen = first_of_each_class(Split(torch.arange(len(y)), y), count)
    read = partial(_read, shards, [len(one) for one in labels], chosen.x.numpy())
    return SplitSource(Stored(shards, (3, SIDE, SIDE), len(chosen), read), chosen.y)


def _file(folder: Path, kind: str, part: str, number: int) -> Path:
    return folder / "processed" / f"{kind}_{part}_{number:02d}.npy"


def _labels(path: Path, shard: Path) -> NDArray[np.int64]:
    """The labels in a file, as many as there are images."""
    labels, images = _array(path), _array(shard)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {labels.dtype} of shape {labels.shape}, not a number an image")
    if images.shape[1:] != (SIDE, SIDE, 3) or images.dtype.kind != "f":
        raise DataError(
            f"{shard}: {images.dtype} of shape {images.shape}, not floats (N, {SIDE}, {SIDE}, 3)"
        )
    if len(labels) != len(images):
        raise DataError(f"{path}: {len(labels)} labels for {len(images)} images")
    return labels.astype(np.int64)


def _array(path: Path) -> NDArray[Any]:
    """An array, mapped into memory."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: damaged ({error}); fetch it again") from error


def _read(
    shards: Sequence[Path], sizes: Sequence[int], chosen: NDArray[np.int64]
) -> Iterator[Rows]:
    """The chosen images, of which `chosen` are the places, ascending; block after block."""
    begin = 0
    for path, size in zip(shards, sizes, strict=True):
        images = _array(path)
        first, end = np.searchsorted(chosen, (begin, begin + size)).tolist()
        for start in range(first, end, BLOCK):
            stop = min(start + BLOCK, end)
            block = images[chosen[start:stop] - begin]
            if not (np.isfinite(block).all() and block.min() >= 0 and block.max() <= 1):
                raise DataError(f"{path}: pixels that are not from 0 to 1")
            pixels = np.rint(block * 255).astype(np.uint8)
            yield np.arange(start, stop), pixels.transpose(0, 3, 1, 2)
        begin += size

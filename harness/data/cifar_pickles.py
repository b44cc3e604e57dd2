"""The pickles of CIFAR's "python version", which both of its data sets are published as."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from harness.data.base import DataError, Split, check_labels, first_of_each_class
from harness.data.pickles import read_pickle
from harness.data.source import SplitSource, Stored

SIDE: Final = 32  # of an image, in pixels


def stored_split(
    paths: Sequence[Path], *, labels: str, classes: int, count: int | None
) -> SplitSource:
    """The images of all files, or the first `count` of each class.

    Raises:
        DataError: if a file is not as published, or there are not so many.
    """
    parts = [read_split(path, labels=labels, classes=classes) for path in paths]
    whole = Split(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))
    split = first_of_each_class(whole, count)
    return SplitSource(Stored.of(paths, split.x), split.y)


def read_split(path: Path, *, labels: str, classes: int) -> Split:
    """The images (N, 3, 32, 32) of one file, with the labels (N,) that it holds as `labels`.

    Raises:
        DataError: if the file is not as published, or has no image of one of the `classes`.
    """
    content = read_pickle(path)
    for key in ("data", labels):
        if key not in content:
            raise DataError(f"{path}: lacks {key!r}; it holds {', '.join(content) or 'nothing'}")
    pixels, y = content["data"], np.asarray(content[labels])
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise DataError(f"{path}: 'data' is no array of bytes")
    if pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        raise DataError(f"{path}: 'data' is of shape {pixels.shape}, not (N, {3 * SIDE * SIDE})")
    if y.dtype.kind not in "iu" or y.shape != pixels.shape[:1]:
        raise DataError(f"{path}: {labels!r} are no {len(pixels)} numbers, one for each image")
    x = torch.from_numpy(pixels).view(-1, 3, SIDE, SIDE)
    split = Split(x, torch.from_numpy(y.astype(np.int64)))
    check_labels(split, classes, where=path)
    return split


def read_class_names(path: Path, *, key: str, classes: int) -> tuple[str, ...]:
    """The names that a file holds as `key`, in the order of the labels.

    Raises:
        DataError: if it has no list of so many.
    """
    names = read_pickle(path).get(key)
    if not isinstance(names, list) or len(names) != classes:
        raise DataError(f"{path}: {key!r} is no list of {classes} names")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

"""What a data set is made from: files on disk, before they become arrays of pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.base import DataError
from harness.data.decoder import Shape

SUFFIXES: Final = frozenset({".jpeg", ".jpg"})
"""Of the files that are pictures, in small letters."""

Rows = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Numbers of rows, and their images (n, C, H, W)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file: its path below the folder of its split, with "/" between names, and its labels.

    `session` is the video that a frame is part of, None for photographs.
    """

    path: str
    label: int
    domain: int | None = None
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """The images of a split, each in a file of its own; a row each, in their order."""

    folder: Path
    paths: Sequence[str]  # relative to it
    shape: Shape

    @property
    def sides(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return 3, self.shape.size, self.shape.size

    def __len__(self) -> int:
        return len(self.paths)

    def files(self) -> Iterator[tuple[str, int]]:
        """Path and size in bytes of every picture.

        Raises:
            DataError: if one is missing.
        """
        with reading(self.folder):
            for path in self.paths:
                yield path, (self.folder / path).stat().st_size

    def watched(self) -> list[Path]:
        """The folders that the pictures are in; adding or removing one changes its time."""
        return sorted({(self.folder / path).parent for path in self.paths})


@dataclass(frozen=True, slots=True)
class Stored:
    """The images of a split, read out of files that hold many.

    Attributes:
        origins: the files.
        sides: (C, H, W) of an image.
        count: of the images.
        read: yields every row once, block after block, in any order.
    """

    origins: Sequence[Path]
    sides: tuple[int, int, int]
    count: int
    read: Callable[[], Iterable[Rows]]

    @classmethod
    def of(cls, origins: Sequence[Path], x: Tensor) -> Stored:
        """Images uint8 (N, C, H, W) that have been read already."""
        channels, height, width = x.shape[1:]
        rows = np.arange(len(x))
        return cls(origins, (channels, height, width), len(x), lambda: [(rows, x.numpy())])

    def __len__(self) -> int:
        return self.count

    def files(self) -> Iterator[tuple[str, int]]:
        """Name and size in bytes of every file.

        Raises:
            DataError: if one is missing.
        """
        for path in self.origins:
            with reading(path):
                yield path.name, path.stat().st_size

    def watched(self) -> list[Path]:
        return list(self.origins)


@dataclass(frozen=True, slots=True)
class SplitSource:
    """One split before it is prepared: its images, and of each what `harness.data.base.Split` has.

    `labels`, `domain` and `session` are int64 (N,).
    """

    images: Pictures | Stored
    labels: Tensor
    domain: Tensor | None = None
    session: Tensor | None = None

    @classmethod
    def of_pictures(cls, folder: Path, pictures: Sequence[Picture], shape: Shape) -> SplitSource:
        """A split whose images are files below `folder`; at least one, in the order of the rows."""
        domains = [p.domain for p in pictures if p.domain is not None]
        sessions = [p.session for p in pictures if p.session is not None]
        return cls(
            Pictures(folder, [picture.path for picture in pictures], shape),
            torch.tensor([picture.label for picture in pictures]),
            torch.tensor(domains) if domains else None,
            torch.tensor(sessions) if sessions else None,
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds of a data set.

    `train` is None in a set that learners trained on another one are measured with. `watched` are
    files and folders that decide which images there are, besides those that hold them.
    """

    train: SplitSource | None
    test: SplitSource
    class_names: tuple[str, ...]
    watched: tuple[Path, ...] = ()

    def splits(self) -> dict[str, SplitSource]:
        """Those that there are, by name."""
        found = {"train": self.train, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}


@contextmanager
def reading(place: Path) -> Generator[None]:
    """Name the file that cannot be read, else `place`: an OSError in here becomes a DataError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{error.filename or place}: cannot be read ({reason})") from error


def picture_names(folder: Path, *, absent: str) -> list[str]:
    """Names of the pictures in a folder; other files, and hidden ones, are passed over.

    Raises:
        DataError: if it is not there, with what `absent` says to do, or holds no pictures.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {absent}")
    names = [
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    ]
    if not names:
        raise DataError(f"{folder}: holds no *.JPEG file")
    return names


def first_pictures(pictures: Iterable[Picture], count: int | None, *, where: Path) -> list[Picture]:
    """All pictures in the order of their paths, or the first `count` of each class and domain.

    Raises:
        DataError: if there are not so many; `where` they were looked for is named.
    """
    chosen = sorted(pictures, key=lambda picture: picture.path)
    if count is None:
        return chosen
    groups: dict[tuple[int, int | None], int] = defaultdict(int)
    kept: list[Picture] = []
    for picture in chosen:
        group = (picture.label, picture.domain)
        groups[group] += 1
        if groups[group] <= count:
            kept.append(picture)
    fewest = min(groups.values())
    if not 1 <= count <= fewest:
        raise DataError(f"{where}: {count} images a class were asked for; there are 1 to {fewest}")
    return kept

"""Fill a file with images, block after block, so that it can be gone on with after a kill.

A journal beside the file has a line for each block that is done: what it was made from, and the
sum of its images. If a picture has been replaced since, or the sum is another one, the block is
decoded again; the others are kept.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Final, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.data.base import DataError
from harness.data.decoder import Block, Decoded, decode_block, digest
from harness.data.image_file import (
    BLOCK,
    Sides,
    allocate,
    block_count,
    block_sum,
    is_whole,
    sums,
    write_at,
)
from harness.data.source import Pictures, Rows, Stored, reading
from harness.data.workers import decoded

MOST_WORKERS: Final = 16
"""Processes are not more than this unless asked for: each takes some 40 MB."""

ALONE: Final = 4
"""So few blocks are decoded faster by this process alone than others could start."""

FLUSH_SECONDS: Final = 2.0
"""Between two times that what has been written is brought to the disk."""

LINE_SECONDS: Final = 10.0
"""Between two lines of progress where there is no terminal."""

JOURNAL: Final = ".blocks"
"""Ending of the journal of a file of images."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A file of images that is whole: the sum of each block, and why some rows are black."""

    crc32: tuple[int, ...]
    faults: dict[int, str]


def fill(path: Path, images: Pictures | Stored, *, workers: int | None = None) -> Filled:
    """Write the images as an array (N, C, H, W) to the file `path`, or what is missing of them.

    Args:
        path: Of a .npy file; a journal of the same name lies beside it.
        images: At least one.
        workers: Processes at once; None: one a core.

    Raises:
        DataError: if what the images are made from is missing or, if not a picture, damaged.
        OSError: if the file cannot be written.
    """
    if not is_whole(path, _sides(images)):
        allocate(path, _sides(images))
    if isinstance(images, Stored):
        filled = _copy(path, images)
    else:
        filled = _decode(path, images, workers or cores())
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return filled


def cores() -> int:
    """Processes to decode with: one for each core that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return min(MOST_WORKERS, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _sides(images: Pictures | Stored) -> Sides:
    return len(images), *images.sides


def _decode(path: Path, images: Pictures, workers: int) -> Filled:
    blocks = list(_blocks(images))
    done = _done(path, _sides(images), {block.number: block.made_from for block in blocks})
    todo = [block for block in blocks if block.number not in done]
    count = min(workers, len(todo))
    if count == 1 or len(todo) <= ALONE:
        fresh = (decode_block(block, str(path)) for block in todo)
    else:
        fresh = decoded(todo, str(path), count=count)
    ready = len(images) - sum(len(block.files) for block in todo)
    watched = _watched(len(images), ready, f"decoding {images.folder}")
    # Closed, so that no process writes to the file any more when this function has been left.
    with _journal(path) as journal, watched as tell, _flushed(path), closing(fresh):
        for one in fresh:
            done[one.number] = one
            _note(journal, one)
            tell(len(blocks[one.number].files))
    faults = {
        number * BLOCK + place: why
        for number, one in sorted(done.items())
        for place, why in one.faults.items()
    }
    return Filled(tuple(done[block.number].crc32 for block in blocks), faults)


def _blocks(images: Pictures) -> Iterator[Block]:
    files = list(images.files())
    for number, start in enumerate(range(0, len(files), BLOCK)):
        yield Block(number, str(images.folder), files[start : start + BLOCK], images.shape)


def _copy(path: Path, images: Stored) -> Filled:
    """Write images that are read from files which hold many; all of them, or none count."""
    sides = _sides(images)
    made_from = digest(list(images.files()))
    done = _done(path, sides, dict.fromkeys(range(block_count(sides)), made_from))
    if len(done) < block_count(sides):
        _write_rows(path, images)
        numbered = enumerate(sums(path, sides))
        done = {number: Decoded(number, made_from, crc, {}) for number, crc in numbered}
        with _journal(path) as journal:
            for one in done.values():
                _note(journal, one)
    return Filled(tuple(done[number].crc32 for number in range(len(done))), {})


def _write_rows(path: Path, images: Stored) -> None:
    seen = np.zeros(len(images), np.bool_)
    watched = _watched(len(images), 0, f"reading {images.origins[0]}")
    with path.open("r+b", buffering=0) as file, watched as tell:
        for rows, block in _read(images):
            for row, run in _runs(rows, block):
                write_at(file, run, row)
            seen[rows] = True
            tell(len(rows))
    if not seen.all():
        raise DataError(f"{images.origins[0]}: {seen.sum()} images, not {len(images)}")


def _read(images: Stored) -> Iterator[Rows]:
    with reading(images.origins[0]):
        yield from images.read()


def _runs(
    rows: NDArray[np.int64], images: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Cut images into those whose rows follow each other; the first row of each, and its images."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(rows):
        starts = [0, *cuts.tolist()]
        yield from zip(rows[starts].tolist(), np.split(images, cuts), strict=True)


def _done(path: Path, sides: Sides, made_from: Mapping[int, str]) -> dict[int, Decoded]:
    """The blocks that are in the file as the journal says, made from what they would be now.

    Pictures that could not be decoded may have been fetched again, so that theirs are not done.
    """
    with path.open("rb") as file:
        return {
            one.number: one
            for one in _noted(path)
            if made_from.get(one.number) == one.made_from
            and not one.faults
            and block_sum(file, sides, one.number) == one.crc32
        }


def _noted(path: Path) -> Iterable[Decoded]:
    """The last line of the journal on each block; one that a crash cut short is passed over."""
    last: dict[int, Decoded] = {}
    try:
        text = path.with_suffix(JOURNAL).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(line)
            faults = {int(place): why for place, why in content.pop("faults").items()}
            last[content["number"]] = Decoded(**content, faults=faults)
    return last.values()


@contextmanager
def _journal(path: Path) -> Generator[TextIO]:
    """The journal of a file of images, to add lines to."""
    with path.with_suffix(JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write("\n")  # the last line may have been cut short
        yield journal


@contextmanager
def _flushed(path: Path) -> Generator[None]:
    """Bring a file to the disk while others write to it, so that little is left at the end.

    Raises:
        OSError: if that failed once; the system tells it to this call only.
    """
    ended = Event()

    def flush() -> None:
        with path.open("rb") as file:
            while not ended.wait(FLUSH_SECONDS):
                os.fsync(file.fileno())

    with ThreadPoolExecutor(1) as thread:
        flushing = thread.submit(flush)
        try:
            yield
        finally:
            ended.set()
        flushing.result()


def _note(journal: TextIO, block: Decoded) -> None:
    journal.write(json.dumps(asdict(block)) + "\n")
    journal.flush()


@contextmanager
def _watched(total: int, done: int, what: str) -> Generator[Callable[[int], None]]:
    """Show how many of `total` images are done: a bar on a terminal, else a line now and then.

    What is yielded is to be called with the number of images that have been done since.
    """
    if not sys.stderr.isatty():
        yield _Lines(total, done, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


class _Lines:
    """Progress for a log file."""

    def __init__(self, total: int, done: int, what: str) -> None:
        self._total, self._what = total, what
        self._done = self._first = done
        self._start = self._told = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._told < LINE_SECONDS or self._done == self._first:
            return
        self._told = now
        rate = (self._done - self._first) / (now - self._start)
        minutes = (self._total - self._done) / rate / 60
        sys.stderr.write(
            f"{self._what}: {self._done:,} of {self._total:,} images, {rate:,.0f} a second, "
            f"{minutes:.0f} min left\n"
        )

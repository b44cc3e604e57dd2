"""Processes that decode blocks of pictures; they end with this one, however it ends.

They are not those of `multiprocessing`, which run the file of the main program once more: one that
was read from a pipe is not there to be run, and one without a guard would do all its work again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Final, cast

from harness.data.base import DataError
from harness.data.decoder import Block, Decoded

AHEAD: Final = 2
"""Blocks that a process has been given: the one that it decodes, and the next."""


def decoded(blocks: Sequence[Block], target: str, *, count: int) -> Generator[Decoded]:
    """Decode blocks into the file of images `target` by `count` processes, in any order.

    Raises:
        DataError: if a process has been killed.
        OSError: if the file cannot be written.
    """
    with _started(count) as lines:
        try:
            yield from _answers(lines, blocks, target)
        except (EOFError, ConnectionError) as error:
            raise DataError(
                f"{target}: a process that decodes was killed, as for want of memory; the same "
                "command goes on from here"
            ) from error


def _answers(lines: list[Connection], blocks: Sequence[Block], target: str) -> Iterator[Decoded]:
    waiting, missing = iter(blocks), len(blocks)
    for line in AHEAD * lines:
        _give(line, waiting, target)
    while missing:
        for line in cast(list[Connection], wait(lines)):
            answer = line.recv()
            if isinstance(answer, OSError):
                raise answer
            _give(line, waiting, target)
            missing -= 1
            yield answer


def _give(line: Connection, waiting: Iterator[Block], target: str) -> None:
    for block in islice(waiting, 1):
        line.send((block, target))


@contextmanager
def _started(count: int) -> Generator[list[Connection]]:
    """A connection to each of so many new processes, which end when these are closed."""
    lines: list[Connection] = []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            lines.append(ours)
            with theirs:
                processes.append(_start(theirs.fileno()))
        yield lines
    finally:
        for line in lines:
            line.close()
        for process in processes:
            process.wait()


def _start(handle: int) -> subprocess.Popen[bytes]:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from harness.data.decoder import serve; serve({handle})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        pass_fds=[handle],
        process_group=0,  # Ctrl-C is for this process only
    )

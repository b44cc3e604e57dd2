"""A file of images: a .npy array of bytes (N, C, H, W), which may be larger than the memory.

Worker processes import this, so torch is not. Its header is always of the same length, so that
images begin at the same place of every file, and what is not such a file is found out at once.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import sys
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

Sides = tuple[int, int, int, int]
"""(N, C, H, W)."""

BLOCK: Final = 64
"""Images of a block: 10 MB of pixels at 224x224, whatever the number of images."""

BEGIN: Final = 128
"""Byte where the first image begins."""

_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# Without it Linux refuses to map a file that is larger than its memory for writing. mmap.h; the
# module `mmap` does not have it before Python 3.13.
_NO_RESERVE: Final = 0x4000 if sys.platform == "linux" else 0


def allocate(path: Path, sides: Sides) -> None:
    """Make a file of black images, whose space is taken at once if the file system can do so.

    A full disk shows then before hours of work.

    Raises:
        OSError: if there is not enough space, or the file cannot be written; it is gone then.
    """
    try:
        with path.open("wb") as file:
            file.write(_header(sides))
            _take_space(file, _size(sides))
            file.truncate(_size(sides))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_whole(path: Path, sides: Sides) -> bool:
    """Whether a file has the header and the size of images (N, C, H, W)."""
    try:
        with path.open("rb") as file:
            return file.read(BEGIN) == _header(sides) and path.stat().st_size == _size(sides)
    except OSError:
        return False


def write_at(file: IO[bytes], values: NDArray[np.uint8], row: int) -> None:
    """Write images (n, C, H, W) to the rows of a file from `row` on.

    Raises:
        OSError: if they cannot be written.
    """
    offset = BEGIN + row * values[0].size
    raw = np.ascontiguousarray(values).reshape(-1).data
    while raw:
        written = os.pwrite(file.fileno(), raw, offset)
        raw, offset = raw[written:], offset + written


def mapped(path: Path, sides: Sides) -> NDArray[np.uint8]:
    """The images, mapped into memory; what is written to them does not reach the file.

    They can be written to because PyTorch knows no tensors that cannot.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not one of such images.
    """
    if not is_whole(path, sides):
        raise ValueError(f"{path}: no whole file of images {sides}")
    with path.open("rb") as file:
        whole = mmap.mmap(
            file.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | _NO_RESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    return np.ndarray(sides, np.uint8, buffer=whole, offset=BEGIN)


def sums(path: Path, sides: Sides) -> tuple[int, ...]:
    """The CRC-32 of each block of images."""
    with path.open("rb") as file:
        return tuple(block_sum(file, sides, number) for number in range(block_count(sides)))


def block_sum(file: IO[bytes], sides: Sides, number: int) -> int:
    """The CRC-32 of the images of a block."""
    size = BLOCK * math.prod(sides[1:])
    file.seek(BEGIN + number * size)
    return zlib.crc32(file.read(size))


def block_count(sides: Sides) -> int:
    """How many there are; the last one may be shorter."""
    return -(-sides[0] // BLOCK)


def leave_out(path: Path, sides: Sides, rows: Collection[int]) -> Sides:
    """Take rows out of a file, in place; how large it is then.

    Raises:
        OSError: if the file cannot be written.
    """
    kept = np.delete(np.arange(sides[0]), list(rows))
    shorter = (len(kept), *sides[1:])
    images = mapped(path, sides)
    with path.open("r+b", buffering=0) as file:
        for start in range(min(rows), len(kept), BLOCK):
            write_at(file, images[kept[start : start + BLOCK]], start)
        file.write(_header(shorter))
        file.truncate(_size(shorter))
        os.fsync(file.fileno())
    return shorter


def _size(sides: Sides) -> int:
    return BEGIN + math.prod(sides)


def _header(sides: Sides) -> bytes:
    """Version 1.0 of NumPy's format, in its own words."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {sides}, }}"
    length = BEGIN - 10
    head = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little")
    return head + text.ljust(length - 1).encode("ascii") + b"\n"


def _take_space(file: IO[bytes], size: int) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise

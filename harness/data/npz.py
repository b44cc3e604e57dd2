"""Read arrays in .npz files that are too large to be held as a whole."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.data.base import DataError

BLOCK: Final = 256
"""Images read at once: 38 MB at 224x224 in colour, whatever the number of images."""


def stored_shape(path: Path, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in an .npz file, of which nothing else is read.

    Raises:
        DataError: if the file is damaged or has no such array.
    """
    with opened(path, member) as file:
        return _header(file)


def stored_rows(path: Path, member: str, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Rows of an array of bytes in an .npz file, block after block, in their order.

    The array is read from front to back and only a block of it is held at a time. numpy itself
    would read 8 GB of TissueMNIST at once, since it does not map the parts of a zip into memory.

    Args:
        path: Of the file.
        member: Name of the array, uint8 (N, ...).
        rows: Row numbers below N, ascending.

    Raises:
        DataError: if the file is damaged or has no such array.
    """
    with opened(path, member) as file:
        (total, *sides), _ = _header(file)
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            raw = file.read((stop - start) * math.prod(sides))
            block = np.frombuffer(raw, np.uint8).reshape(stop - start, *sides)
            first, end = np.searchsorted(rows, (start, stop))
            yield block[rows[first:end] - start]
        if file.read(1):  # also makes zipfile compare the checksum of the whole
            raise ValueError(f"{member} is longer than its header says")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type at the beginning of a .npy file."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array of an unknown version of the format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran:
        raise ValueError("an array whose columns come first")
    return shape, dtype


_DAMAGE: Final = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What zipfile and numpy raise on a damaged file; RuntimeError if it asks for a newer zipfile."""


@contextmanager
def opened(path: Path, member: str) -> Generator[IO[bytes]]:
    """One array of an .npz file, for reading.

    Raises:
        DataError: if the file is damaged or has no such array, in opening or within the block.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            yield file
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path}: lacks {member}") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged ({error}); fetch it again") from error

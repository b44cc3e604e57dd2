"""Read the pickles that data sets are published as, without running what is in them.

A pickle names functions to call, and an ordinary reader calls them. This one knows the few that
numpy arrays, whole numbers and bytes are written with, by any version of numpy and Python, answers
each with a stand-in of its own, and refuses all others.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from harness.data.base import DataError

_NUMBER: Final = re.compile(r"[biuf][1248]")
"""Truth values, whole numbers and floats; no objects, whose content would be pickled in turn."""

_ORDERS: Final[dict[str, Literal["<", ">", "|"]]] = {"<": "<", ">": ">", "|": "|"}

_DAMAGE: Final = (
    *(pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError),
    *(ValueError, OverflowError, MemoryError, RecursionError),
)
"""What the standard reader raises on a damaged file."""


def read_pickle(path: Path) -> dict[str, object]:
    """The dictionary in a pickle of numpy arrays, lists, dictionaries, bytes, text and numbers.

    Keys become text, whether they were text or bytes (which is how Python 2 wrote text); values
    that are bytes stay bytes. Arrays can be written to.

    Raises:
        DataError: if the file is damaged or holds anything else, naming it.
    """
    content = _content(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a dictionary")
    return content


def read_words(path: Path) -> list[str]:
    """The list of texts in a pickle, whether Python 2 or 3 wrote it.

    Raises:
        DataError: if the file is damaged or holds anything else, naming it.
    """
    content = _content(path)
    if not isinstance(content, list) or not all(isinstance(word, bytes | str) for word in content):
        raise DataError(f"{path}: holds no list of texts")
    return [_text(word) for word in content]


def _content(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file, path).load())
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged pickle ({error}); fetch it again") from error


class _DType:
    """Stands in for a numpy type while a pickle is read."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = _text(code)
        self.order: Literal["<", ">", "|"] = "|"
        if not _NUMBER.fullmatch(self.code):
            raise pickle.UnpicklingError(f"an array of type {self.code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _ORDERS[_text(state[1])]

    def array(self, raw: bytes) -> NDArray[Any]:
        """The numbers (N,) in `raw`, as a copy in this machine's byte order."""
        stored = np.frombuffer(raw, np.dtype(self.code).newbyteorder(self.order))
        return stored.astype(self.code)


class _Array:
    """Stands in for a numpy array while a pickle is read."""

    def __init__(self) -> None:
        self.values: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> None:
        self.values = np.reshape(dtype.array(raw), shape, "F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    """An array still without content, which follows as its state."""
    return _Array()


def _from_buffer(
    raw: bytes, dtype: _DType, shape: tuple[int, ...], order: str, *_: object
) -> _Array:
    """An array in one go, as protocol 5 has it."""
    if order not in {"C", "F"}:
        raise pickle.UnpicklingError(f"an array whose axes are in order {order!r}")
    array = _Array()
    array.fill(raw, dtype, shape, order)
    return array


def _scalar(dtype: _DType, raw: bytes) -> int:
    if dtype.code.startswith("f"):
        raise pickle.UnpicklingError("a number that is not whole")
    return int(dtype.array(raw).item())


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them in the protocols of Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin-1")


_KNOWN: Final[dict[tuple[str, str], object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encoded,
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="bytes")  # of what Python 2 called text
        self._path = path

    def find_class(self, module: str, name: str, /) -> object:
        known = (module.replace("numpy._core.", "numpy.core."), name)
        if known not in _KNOWN:
            raise DataError(
                f"{self._path}: refused, because it would load {module}.{name}, and a data set "
                "needs nothing but arrays and lists"
            )
        return _KNOWN[known]


def _plain(value: object) -> object:
    """A value with arrays for their stand-ins, lists for tuples, and text for keys."""
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    if isinstance(value, dict):
        return {_text(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    if isinstance(value, bytes | str | int):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__.strip('_').lower()} is in it")


def _text(word: object) -> str:
    if not isinstance(word, bytes | str):
        raise pickle.UnpicklingError(f"{word!r} stands where a word is expected")
    return word.decode() if isinstance(word, bytes) else word

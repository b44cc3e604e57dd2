"""Range coding of integer cues with frequency tables that are stored, never computed again.

Encoder and decoder must build exactly the same model of the symbols. Probabilities that a network
computes may differ in their last bit from one device to the next, so that they become integers
once, before anything is encoded. BrainCL (arXiv:2504.14727) names arithmetic coding only; the
coder is the range coder of the library `constriction`, and how the tables are made is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final, Self, final

import constriction
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]

TOTAL: Final = 2**16
"""Sum of every table: a fraction of it is exact in float32, which is what the coder takes."""

# The library has no type stubs.
_stream: Final[Any] = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]


def stream_format(release: str | None = None) -> str:
    """The coder and as much of its version as decides what its streams look like.

    A release of `constriction` that changes streams has another leading non-zero number.

    Args:
        release: such as "0.5.0", for "constriction 0.5"; None is the one installed.
    """
    numbers = (release or version("constriction")).split(".")
    leading = next((i for i, number in enumerate(numbers) if number != "0"), len(numbers) - 1)
    return f"constriction {'.'.join(numbers[: leading + 1])}"


@final
@dataclass(frozen=True, slots=True, eq=False)
class FrequencyTables:
    """How often each symbol is expected in each channel, in parts of 2**16.

    Attributes:
        lows: int32 (C,), the first symbol of each channel's table.
        tables: uint32 (K_c,) a channel, for the symbols lows[c], lows[c] + 1, ...; at least 1
            each, 2**16 together.

    Raises:
        ValueError: if they are not so, or if a symbol would not be an int32.
    """

    lows: NDArray[np.int32]
    tables: tuple[NDArray[np.uint32], ...]

    def __post_init__(self) -> None:
        if len(self.lows) != len(self.tables) or not self.tables:
            raise ValueError(f"{len(self.lows)} lowest symbols for {len(self.tables)} tables")
        for channel, table in enumerate(self.tables):
            if not table.all() or int(table.sum(dtype=np.uint64)) != TOTAL:
                raise ValueError(f"channel {channel}: frequencies must be >= 1 and sum to {TOTAL}")
        if self.highs.max() > np.iinfo(np.int32).max:
            raise ValueError("symbols must be int32")

    @classmethod
    def from_probabilities(cls, lows: Integers, probabilities: Sequence[Floats]) -> Self:
        """Round each channel's probabilities to frequencies.

        Every symbol gets 1, and its share of what is left, rounded down; the remainder goes to the
        most frequent symbol.

        Args:
            lows: (C,), the first symbol of each channel.
            probabilities: float64 (K_c,) a channel, up to a factor.

        Raises:
            ValueError: if a channel has no symbol, more than 2**16, or no valid probabilities.
        """
        tables = [_frequencies(p, channel) for channel, p in enumerate(probabilities)]
        return cls(int32(lows, "the lowest symbols"), tuple(tables))

    @classmethod
    def from_bytes(cls, data: bytes, channels: int) -> Self:
        """What `to_bytes` wrote for so many channels.

        Raises:
            ValueError: if it did not.
        """
        lows = np.frombuffer(data, "<i4", channels)
        widths = np.frombuffer(data, "<u4", channels, offset=lows.nbytes)
        entries = np.frombuffer(data, "<u2", offset=lows.nbytes + widths.nbytes)
        if len(entries) != widths.sum(dtype=np.uint64):
            raise ValueError(f"{len(entries)} frequencies for {widths.sum()} symbols")
        tables = np.split(entries.astype(np.uint32) + 1, np.cumsum(widths, dtype=np.int64)[:-1])
        return cls(lows.astype(np.int32), tuple(tables))

    def to_bytes(self) -> bytes:
        """Lowest symbols, numbers of symbols, frequencies less 1 (2**16 has no room in 16 bits)."""
        widths = np.array([len(table) for table in self.tables], "<u4")
        entries = (np.concatenate(self.tables) - 1).astype("<u2")
        return self.lows.astype("<i4").tobytes() + widths.tobytes() + entries.tobytes()

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return 8 * len(self.tables) + 2 * sum(len(table) for table in self.tables)

    @property
    def highs(self) -> NDArray[np.int64]:
        """The last symbol of each channel, (C,)."""
        widths = [len(table) for table in self.tables]
        return self.lows.astype(np.int64) + widths - 1


def symbol_range(symbols: Integers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lowest and the highest symbol of each channel, (C,) each.

    Args:
        symbols: (N, C, h, w), not empty.

    Raises:
        ValueError: if a channel is too wide for a table, as after a network that diverged.
    """
    lows = symbols.min((0, 2, 3)).astype(np.int64)
    highs = symbols.max((0, 2, 3)).astype(np.int64)
    for channel, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        if high - low >= TOTAL:
            raise ValueError(
                f"channel {channel} of the cues has symbols from {low} to {high}; "
                f"a table holds at most {TOTAL}"
            )
    return lows, highs


def encode(symbols: Integers, tables: FrequencyTables) -> bytes:
    """One image's symbols as a stream of its own, whole 32-bit words in little-endian order.

    A channel whose table has one symbol takes no bits.

    Args:
        symbols: (C, n), coded channel by channel.
        tables: of C channels.

    Raises:
        ValueError: if a symbol is not in its channel's table, or the shape is wrong.
    """
    if symbols.ndim != 2 or len(symbols) != len(tables.tables) or not symbols.size:
        raise ValueError(f"{symbols.shape} symbols for the tables of {len(tables.tables)} channels")
    outside = (symbols.min(1) < tables.lows) | (symbols.max(1) > tables.highs)
    if outside.any():
        raise ValueError(f"channel {outside.argmax()}: a symbol is not in the table")
    encoder = _stream.queue.RangeEncoder()
    shifted = (symbols - tables.lows[:, None]).astype(np.int32, copy=False)
    for row, model in zip(shifted, _models(tables), strict=True):
        if model is not None:
            encoder.encode(row, model)
    return encoder.get_compressed().astype("<u4", copy=False).tobytes()


def decode(payload: bytes, tables: FrequencyTables, symbols_per_channel: int) -> NDArray[np.int32]:
    """The symbols (C, n) that were encoded, with n = `symbols_per_channel`.

    Raises:
        ValueError: if it shows that the payload was not encoded with these tables. A wrong payload
            may also give wrong symbols: whoever stores payloads must protect them.
    """
    if len(payload) % 4:
        raise ValueError(f"a payload has whole words of 4 bytes, this one {len(payload)} bytes")
    decoder = _stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    symbols = np.zeros((len(tables.tables), symbols_per_channel), np.int32)
    try:
        for row, model in zip(symbols, _models(tables), strict=True):
            if model is not None:
                row[:] = decoder.decode(model, symbols_per_channel)
    except AssertionError:  # what the library raises
        raise ValueError("the payload does not fit the tables") from None
    if not decoder.maybe_exhausted():
        raise ValueError("the payload is longer than its symbols")
    symbols += tables.lows[:, None]
    return symbols


def int32(values: Integers, what: str) -> NDArray[np.int32]:
    """The same numbers as int32.

    Raises:
        ValueError: if they do not fit; it names `what` they are.
    """
    narrow = np.asarray(values).astype(np.int32)
    if not np.array_equal(narrow, values):
        raise ValueError(f"{what} must be int32")
    return narrow


def _frequencies(probabilities: Floats, channel: int) -> NDArray[np.uint32]:
    symbols = len(probabilities)
    if not 1 <= symbols <= TOTAL:
        raise ValueError(f"channel {channel}: {symbols} symbols; a table holds 1 to {TOTAL}")
    mass = probabilities.sum()
    if not (np.isfinite(mass) and mass > 0 and probabilities.min() >= 0):
        raise ValueError(f"channel {channel}: probabilities must be finite, >= 0 and not all 0")
    table = 1 + (probabilities / mass * (TOTAL - symbols)).astype(np.uint32)
    table[table.argmax()] += TOTAL - int(table.sum())
    return table


@lru_cache(maxsize=8)  # a task's cues come one after the other
def _models(tables: FrequencyTables) -> list[Any]:
    """The coder's model of each channel; None where there is but one symbol."""
    return [
        # float32 and `perfect=False` are part of the format: other values give other streams.
        _stream.model.Categorical((table / TOTAL).astype(np.float32), perfect=False)
        if len(table) > 1
        else None
        for table in tables.tables
    ]

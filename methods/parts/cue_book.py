"""The cues of one task: range-coded, each with its label and where it came from; also as a file.

BrainCL (arXiv:2504.14727) keeps entropy-coded cues in place of images. How they are laid out is not
stated there. Numbers in a file are little-endian:

    magic (8 bytes), size of the file (uint64), format (uint32), size of the header (uint32),
    header (JSON), frequency tables, `INDEX` of every cue, payload of every cue,
    SHA-256 of everything before (32 bytes)

Magic and size come first and the checksum last in every format, so that damage is told from age.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.parts import cue_coder
from methods.parts.cue_coder import Floats, FrequencyTables, Integers

Probabilities = Callable[[Tensor, Tensor], Sequence[Floats]]
"""From the lowest and the highest symbol of each channel, int64 (C,) on the CPU, to each channel's
probabilities of the symbols from the one to the other, float64 (K_c,)."""

FORMAT: Final = 1
INDEX: Final = np.dtype([("label", "<i4"), ("row", "<i8"), ("nbytes", "<u4")])

_MAGIC: Final = b"CUEBOOK\0"
_START: Final = struct.Struct("<8sQII")
_CHECKSUM: Final = sha256().digest_size


class CueError(ValueError):
    """Stored cues that cannot be used; the message names the file and says why."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class CueBook:
    """Range-coded cues of images of one size.

    Attributes:
        shape: (C, h, w) of each cue.
        image_size: (H, W) of the images, in pixels.
        network: digest of the network that recalls images from these cues.
        tables: what all of them are coded with.
        index: `INDEX` (N,): label, row in the training data, bytes of the payload.
        payloads: of all cues, one behind the other.
    """

    shape: tuple[int, int, int]
    image_size: tuple[int, int]
    network: str
    tables: FrequencyTables
    index: NDArray[np.void]
    payloads: bytes

    @classmethod
    def encode(
        cls,
        symbols: Tensor | Integers,
        probabilities: Probabilities,
        labels: Tensor | Integers,
        rows: Tensor | Integers,
        *,
        image_size: tuple[int, int],
        network: str,
    ) -> Self:
        """Encode a task's cues, each on its own, and decode each to see that it is the same.

        The tables cover the symbols that occur, and nothing else.

        Args:
            symbols: integers (N, C, h, w), at least one.
            probabilities: of the symbols that occur.
            labels: (N,), within int32.
            rows: (N,), row numbers in the training data.
            image_size: (H, W) of the images.
            network: digest of the network that recalls them; see `network_digest`.

        Raises:
            ValueError: if shapes or types are others, or a channel's symbols lie too far apart.
        """
        cues = _integers(symbols, "cues")
        label, row = _integers(labels, "labels"), _integers(rows, "rows")
        if cues.ndim != 4 or not cues.size:
            raise ValueError(f"cues must be (N, C, h, w) and not empty, got {cues.shape}")
        if label.shape != (len(cues),) or row.shape != (len(cues),):
            raise ValueError(f"{len(cues)} cues, but labels {label.shape} and rows {row.shape}")
        index = np.zeros(len(cues), INDEX)
        index["label"], index["row"] = cue_coder.int32(label, "labels"), row
        lows, highs = cue_coder.symbol_range(cues)
        expected = probabilities(torch.from_numpy(lows), torch.from_numpy(highs))
        tables = FrequencyTables.from_probabilities(lows, expected)
        payloads = [_encoded(cue.reshape(len(cue), -1), tables) for cue in cues]
        index["nbytes"] = [len(payload) for payload in payloads]
        return cls(cues.shape[1:], image_size, network, tables, index, b"".join(payloads))

    def decode(self, positions: Tensor | Sequence[int] | None = None) -> NDArray[np.int32]:
        """The symbols of the cues at these positions, all of them by default.

        Returns:
            int32 (n, C, h, w).

        Raises:
            IndexError: if there is no such position.
        """
        chosen = self._chosen(positions)
        channels, height, width = self.shape
        cues = np.empty((len(chosen), channels, height * width), np.int32)
        for cue, payload in zip(cues, self._cut(chosen), strict=True):
            cue[:] = cue_coder.decode(payload, self.tables, height * width)
        return cues.reshape(len(chosen), *self.shape)

    def keep(self, positions: Tensor | Sequence[int]) -> Self:
        """A book of the cues at these positions alone, in that order, with the same tables.

        Raises:
            IndexError: if there is no such position.
        """
        chosen = self._chosen(positions)
        return replace(self, index=self.index[chosen], payloads=b"".join(self._cut(chosen)))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labels(self) -> Tensor:
        """int64 (N,) on the CPU."""
        return torch.from_numpy(self.index["label"].astype(np.int64))

    @property
    def rows(self) -> Tensor:
        """Row numbers in the training data, int64 (N,) on the CPU."""
        return torch.from_numpy(self.index["row"].astype(np.int64))

    def bits(self) -> Tensor:
        """Bits of each cue's payload, int64 (N,) on the CPU; a multiple of 32."""
        return torch.from_numpy(8 * self.index["nbytes"].astype(np.int64))

    @property
    def payload_nbytes(self) -> int:
        """Bytes of the coded cues."""
        return len(self.payloads)

    @property
    def index_nbytes(self) -> int:
        """Bytes of everything else that a file has: header, tables, index, checksum."""
        fixed = _START.size + len(self._header()) + _CHECKSUM
        return fixed + self.tables.nbytes + self.index.nbytes

    def to_bytes(self) -> bytes:
        """The book as a file has it, `payload_nbytes` + `index_nbytes` bytes."""
        header, size = self._header(), self.index_nbytes + self.payload_nbytes
        start = _START.pack(_MAGIC, size, FORMAT, len(header))
        parts = [start, header, self.tables.to_bytes(), self.index.tobytes(), self.payloads]
        checksum = sha256()
        for part in parts:
            checksum.update(part)
        return b"".join([*parts, checksum.digest()])

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str, network: str | None) -> Self:
        """The book that `to_bytes` wrote.

        Args:
            data: all of it.
            where: what messages call it, such as the path of a file.
            network: digest of the network that is to recall the images; None if any will do.

        Raises:
            CueError: if it is something else, of another format, cut short or damaged, coded by a
                version of the coder with other streams, or made by another network.
        """
        _check_whole(data, where)
        stream = BytesIO(data)
        *_, version, header_size = _START.unpack(stream.read(_START.size))
        if version != FORMAT:
            raise CueError(f"{where}: cues of format {version}; this program reads {FORMAT}")
        header = json.loads(stream.read(header_size))
        _check_origin(header, where, network)
        tables = stream.read(header["tables_nbytes"])
        return cls(
            shape=tuple(header["shape"]),
            image_size=tuple(header["image_size"]),
            network=header["network"],
            tables=FrequencyTables.from_bytes(tables, channels=header["shape"][0]),
            index=np.frombuffer(stream.read(header["cues"] * INDEX.itemsize), INDEX),
            payloads=stream.read(len(data) - _CHECKSUM - stream.tell()),
        )

    def save(self, path: Path) -> None:
        """Write a file, which appears whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        handle, part = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            Path(part).chmod(0o644)  # others on a shared disk may read it
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, *, network: str | None) -> Self:
        """Read a file that `save` wrote; see `from_bytes`.

        Raises:
            CueError: if it cannot be used.
            OSError: if it cannot be read.
        """
        return cls.from_bytes(path.read_bytes(), where=str(path), network=network)

    def _header(self) -> bytes:
        header = {
            "coder": cue_coder.stream_format(),
            "cues": len(self),
            "image_size": self.image_size,
            "network": self.network,
            "shape": self.shape,
            "tables_nbytes": self.tables.nbytes,
        }
        return json.dumps(header).encode()

    def _chosen(self, positions: Tensor | Sequence[int] | None) -> NDArray[np.int64]:
        everything = np.arange(len(self))
        if positions is None:
            return everything
        chosen = torch.as_tensor(positions).cpu().numpy()
        return everything[chosen] if chosen.size else everything[:0]

    def _cut(self, chosen: NDArray[np.int64]) -> Iterator[bytes]:
        """The payloads at these positions."""
        ends = np.cumsum(self.index["nbytes"], dtype=np.int64)
        starts = ends - self.index["nbytes"]
        for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True):
            yield self.payloads[start:end]


def network_digest(module: nn.Module) -> str:
    """16 hexadecimal digits that change with any parameter or buffer, or the name of one."""
    digest = sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _encoded(symbols: Integers, tables: FrequencyTables) -> bytes:
    """One cue's payload. Its image is about to be dropped: what decodes otherwise is lost."""
    payload = cue_coder.encode(symbols, tables)
    if not np.array_equal(cue_coder.decode(payload, tables, symbols.shape[1]), symbols):
        raise RuntimeError("a cue does not decode to what was encoded")
    return payload


def _integers(values: Tensor | Integers, what: str) -> Integers:
    array: NDArray[Any] = torch.as_tensor(values).cpu().numpy()
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers, got {array.dtype}")
    return array


def _check_whole(data: bytes, where: str) -> None:
    if not _MAGIC.startswith(data[: len(_MAGIC)]):
        raise CueError(f"{where}: not a file of cues")
    size = _START.unpack_from(data)[1] if len(data) >= _START.size else _START.size
    if len(data) < size:
        raise CueError(f"{where}: cut short, {len(data)} of at least {size} bytes")
    if sha256(memoryview(data)[:-_CHECKSUM]).digest() != data[-_CHECKSUM:]:
        raise CueError(f"{where}: damaged, its checksum is wrong")


def _check_origin(header: dict[str, Any], where: str, network: str | None) -> None:
    installed = cue_coder.stream_format()
    if header["coder"] != installed:
        raise CueError(f"{where}: coded by {header['coder']}, which {installed} may not read")
    if network not in (None, header["network"]):
        raise CueError(f"{where}: cues of another network ({header['network']}, not {network})")

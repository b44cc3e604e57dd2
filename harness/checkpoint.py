"""What an unfinished trial needs to go on after its last finished task.

A file appears whole or not at all, and its name carries a digest of its bytes, so that a damaged
one is passed over for the one before. Nothing is pickled: files load with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import torch

_FORMAT: Final = 1
_KEPT: Final = 2


@final
class CheckpointFolder:
    """The checkpoints of one trial; the two newest are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, position: int, payload: Mapping[str, Any]) -> None:
        """Write the state after task `position`: tensors, numbers, text, lists and mappings."""
        content = io.BytesIO()
        torch.save({"format": _FORMAT, "position": position, **payload}, content)
        data = content.getbuffer()
        name = f"task_{position:04d}_{hashlib.sha256(data).hexdigest()[:16]}.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{uuid.uuid4().hex}.tmp"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / name)
        for old in self._newest_first()[_KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The payload of the newest whole checkpoint, tensors on the CPU; None if there is none."""
        for path in self._newest_first():
            payload = _read(path)
            if payload is not None:
                return payload
        return None

    def clear(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("task_*.pt"), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest = path.stem.rpartition("_")[2]
    if hashlib.sha256(data).hexdigest()[:16] != digest:
        return None
    payload = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return payload if payload["format"] == _FORMAT else None

"""What is in a folder of prepared images: a manifest, and for each split images and numbers.

manifest.json           what is in the others, and what it was made from
<split>.npy             uint8 (N, C, H, W), mapped into memory by every trial
<split>.labels.npy      int64 (N,); likewise .domain.npy and .session.npy in sets that have them
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from harness.data.base import Split
from harness.data.decoder import VERSION
from harness.data.image_file import Sides, mapped, sums
from harness.data.source import SplitSource

MANIFEST: Final = "manifest.json"

KINDS: Final = ("labels", "domain", "session")
"""What is known of each image, in a file of its own."""


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """What a manifest says of a split.

    Attributes:
        shape: (N, C, H, W).
        per_class: number of images of each class, in the order of the labels.
        crc32: of each block of images.
        numbers: CRC-32 of the file of labels, and of the others of its kind that there are.
        skipped: the pictures that could not be decoded and are left out, by their paths below the
            source, with the reason.
    """

    shape: Sides
    per_class: tuple[int, ...]
    crc32: tuple[int, ...]
    numbers: Mapping[str, int]
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a folder of prepared images.

    Attributes:
        version: of the layout and the pixels.
        dataset: name.
        settings: of the set, but `skip_corrupt`.
        source: folder that it was made from.
        checksum: SHA-256 of the list of files that it was made from, with their sizes and labels.
        watched: these files, or the folders they are in, and the pictures left out, by their paths
            below the source; with their times of change in ns.
        class_names: in the order of the labels.
        splits: by name.
    """

    version: int
    dataset: str
    settings: Mapping[str, Any]
    source: str
    checksum: str
    watched: Mapping[str, int]
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitRecord]

    @property
    def skipped(self) -> dict[str, str]:
        """The pictures left out of any split."""
        return {path: why for split in self.splits.values() for path, why in split.skipped.items()}

    def write(self, folder: Path) -> None:
        """It replaces an older one at once; the lock of the folder should be held."""
        part = folder / f"{MANIFEST}.part"
        _write(part, json.dumps(asdict(self), indent=1).encode())
        part.replace(folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of a folder; None if it has none of this version that can be read."""
        try:
            manifest = TypeAdapter(cls).validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return None
        return manifest if manifest.version == VERSION else None


def image_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.npy"


def write_numbers(path: Path, split: SplitSource, rows: Tensor) -> dict[str, int]:
    """Write what is known of the images in these rows beside their file; the sum of each file."""
    sums_of_kinds: dict[str, int] = {}
    for kind in KINDS:
        of_row: Tensor | None = getattr(split, kind)
        if of_row is not None:
            content = BytesIO()
            np.save(content, of_row[rows].numpy())
            _write(_number_file(path, kind), content.getvalue())
            sums_of_kinds[kind] = zlib.crc32(content.getvalue())
    return sums_of_kinds


def read_split(folder: Path, name: str, record: SplitRecord) -> Split:
    """A split, its images mapped into memory.

    Raises:
        OSError, ValueError: if a file is missing, damaged, or of another size.
    """
    path = image_file(folder, name)
    numbers = {
        kind: _read_numbers(_number_file(path, kind), crc) for kind, crc in record.numbers.items()
    }
    images = torch.from_numpy(mapped(path, record.shape))
    return Split(images, numbers["labels"], numbers.get("domain"), numbers.get("session"))


def intact(folder: Path) -> Manifest | None:
    """The manifest of a folder if its files are as it says, for all but the pixels; else None."""
    manifest = Manifest.read(folder)
    if manifest is None:
        return None
    try:
        for name, record in manifest.splits.items():
            read_split(folder, name, record)
    except (OSError, ValueError, KeyError):
        return None
    return manifest


def damaged(folder: Path, manifest: Manifest) -> list[str]:
    """Reads all images: the files of the folder whose sums are not those of the manifest."""
    files = {name: image_file(folder, name) for name in manifest.splits}
    return [
        str(files[name])
        for name, record in manifest.splits.items()
        if sums(files[name], record.shape) != record.crc32
    ]


def _number_file(path: Path, kind: str) -> Path:
    return path.with_suffix(f".{kind}.npy")


def _read_numbers(path: Path, crc32: int) -> Tensor:
    content = path.read_bytes()
    if zlib.crc32(content) != crc32:
        raise ValueError(f"{path}: damaged")
    return torch.from_numpy(np.load(BytesIO(content), allow_pickle=False))


def _write(path: Path, content: bytes) -> None:
    """Write a small file, onto the disk itself."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

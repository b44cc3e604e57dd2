"""Decode a data set once, into arrays of pixels on disk that all trials of a machine then share.

Decoding a hundred thousand JPEG files for every trial would cost more than many trials. Each set
with its settings has a folder `ROOT/prepared/<name>-<digest of the settings>`, whose files
`harness.data.prepared_files` describes.

It appears by a rename when it is whole. Until then it is called `<...>.part`, with a journal of the
blocks that are done, so that the same command goes on after a kill. It is used as it is while the
folders that its pictures came from keep their times; else the list of pictures is compared, and
decoded anew if it is another one. Where the pictures are gone, the prepared folder serves alone.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from harness.config import plain
from harness.data.base import DataError, Dataset, Split, Traits
from harness.data.cache import locked
from harness.data.decoder import VERSION
from harness.data.filling import JOURNAL, Filled, fill
from harness.data.image_file import leave_out, sums
from harness.data.prepared_files import MANIFEST as MANIFEST
from harness.data.prepared_files import (
    Manifest,
    SplitRecord,
    image_file,
    intact,
    read_split,
    write_numbers,
)
from harness.data.prepared_files import damaged as damaged
from harness.data.source import Contents, SplitSource, Stored, reading

FOLDER: Final = "prepared"

SHOWN: Final = 5
"""Of the images that cannot be used, so many are named."""

TICK: Final = 20_000_000
"""The time of a file is at most so many ns behind the clock."""

_SKIP: Final = "skip_corrupt"  # a setting that does not change what is prepared
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A data set that is wanted.

    Attributes:
        name: of the set.
        config: its settings.
        root: the data root.
        find: the folder that its files are in; raises DataError if there is none.
        scan: what is in such a folder.
        workers: processes that decode at once; None: one a core.
    """

    name: str
    config: Any
    root: Path
    find: Callable[[], Path]
    scan: Callable[[Path], Contents]
    workers: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in plain(self.config).items() if key != _SKIP}

    @property
    def skip_corrupt(self) -> bool:
        return getattr(self.config, _SKIP, False)

    @property
    def folder(self) -> Path:
        """Where it is prepared."""
        digest = sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.root / FOLDER / f"{self.name}-{digest}"


def prepared(request: Request, traits: Traits) -> Dataset:
    """The data set, its images mapped into memory; they are decoded if they are not yet.

    Raises:
        DataError: if the set is not there or damaged, or cannot be written.
    """
    manifest = ready(request)
    _check_skipped(request, Path(manifest.source), manifest.skipped)
    try:
        splits = {
            name: read_split(request.folder, name, record)
            for name, record in manifest.splits.items()
        }
    except (OSError, ValueError) as error:  # such as another process that replaces it just now
        raise DataError(f"{request.folder}: cannot be read ({error})") from error
    test = splits["test"]
    none = torch.empty((0,), dtype=torch.int64)
    origin = {"checksum": manifest.checksum, "skipped": len(manifest.skipped)}
    return Dataset(
        request.name,
        splits.get("train", Split(test.x[:0], none)),
        test,
        manifest.class_names,
        traits,
        origin,
    )


def ready(request: Request, *, rescan: bool = False) -> Manifest:
    """The manifest of a folder that is whole and up to date, after it was made if need be.

    Args:
        request: The set.
        rescan: Whether the list of pictures is compared even if nothing seems to have changed.

    Raises:
        DataError: as `prepared` does.
    """
    manifest = intact(request.folder)
    try:
        source = request.find()
    except DataError as error:
        if manifest is None:
            raise _not_found(request, error) from error
        return manifest  # the pictures are not needed any more
    if manifest and not rescan and _times(source, manifest.watched) == manifest.watched:
        return manifest
    scanned = _scanned(request, source)
    try:
        with locked(request.folder):
            manifest = _remembered(request, scanned) or _make(request, scanned)
            _clear_away(request.folder)
            return manifest
    except OSError as error:
        manifest = _unchanged(request, scanned)
        if manifest is None:
            place = error.filename or request.folder
            raise DataError(f"{place}: cannot be written ({error.strerror or error})") from error
        _log.info("%s: cannot be written (%s)", request.folder, error)
        return manifest


def checksum(contents: Contents) -> str:
    """SHA-256 of the files that the images are made from, with all that is known of each image."""
    digest = sha256(json.dumps(contents.class_names).encode())
    for name, split in contents.splits().items():
        files = list(split.images.files())
        digest.update(json.dumps([name, len(split.images), split.images.sides, files]).encode())
        for of_row in (split.labels, split.domain, split.session):
            digest.update(b"none" if of_row is None else of_row.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Scanned:
    source: Path
    contents: Contents
    checksum: str
    watched: dict[str, int]


def _not_found(request: Request, error: DataError) -> DataError:
    if not request.folder.exists():
        return error
    return DataError(
        f"{request.folder}: damaged, or made by another version; to make it again, its source is "
        f"needed. {error}"
    )


def _scanned(request: Request, source: Path) -> _Scanned:
    start = time.time_ns() - TICK
    with reading(source):
        contents = request.scan(source)
    watched = [path for split in contents.splits().values() for path in split.images.watched()]
    names = sorted({_name(path, source) for path in (*watched, *contents.watched)})
    # What has changed since the start may have been listed before it did: look again next time.
    times = {name: at if at < start else -1 for name, at in _times(source, names).items()}
    return _Scanned(source, contents, checksum(contents), times)


def _name(path: Path, source: Path) -> str:
    """The path below the source, or the whole one if it lies elsewhere."""
    return str(path.relative_to(source) if path.is_relative_to(source) else path.absolute())


def _times(source: Path, names: Iterable[str]) -> dict[str, int]:
    """When each file or folder was last changed, in ns; 0 if it is not there."""
    return {name: _time(source / name) for name in names}


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _unchanged(request: Request, scanned: _Scanned) -> Manifest | None:
    """The manifest, if the folder was made from what was found; it says where that is now."""
    manifest = intact(request.folder)
    if manifest is None or manifest.checksum != scanned.checksum:
        return None
    skipped = _times(scanned.source, manifest.skipped)
    if any(manifest.watched.get(name) != at for name, at in skipped.items()):
        return None  # one that could not be decoded has been fetched again
    return replace(manifest, source=str(scanned.source), watched={**scanned.watched, **skipped})


def _remembered(request: Request, scanned: _Scanned) -> Manifest | None:
    """The same, written down; another process may have made the folder while this one waited."""
    manifest = _unchanged(request, scanned)
    if manifest is not None:
        manifest.write(request.folder)
    return manifest


@dataclass(frozen=True, slots=True)
class _Part:
    """A split whose images have been written to `path`, those that cannot be used in black."""

    path: Path
    images: SplitSource
    filled: Filled
    scanned: _Scanned

    @property
    def kept(self) -> Tensor:
        """Of each image (N,) whether it can be used."""
        kept = torch.ones(len(self.images.images), dtype=torch.bool)
        kept[list(self.filled.faults)] = False
        return kept

    @property
    def per_class(self) -> list[int]:
        """The numbers of images that can be used."""
        classes = len(self.scanned.contents.class_names)
        return self.images.labels[self.kept].bincount(minlength=classes).tolist()

    @property
    def skipped(self) -> dict[str, str]:
        """The pictures that cannot be used, and why."""
        pictures = self.images.images
        if isinstance(pictures, Stored):
            return {}
        return {
            _name(pictures.folder / pictures.paths[row], self.scanned.source): why
            for row, why in self.filled.faults.items()
        }

    def finish(self) -> SplitRecord:
        """Leave out what cannot be used, and write what is known of each image that is left."""
        shape, crc32 = (len(self.images.images), *self.images.images.sides), self.filled.crc32
        if self.filled.faults:
            shape = leave_out(self.path, shape, self.filled.faults)
            crc32 = sums(self.path, shape)
        numbers = write_numbers(self.path, self.images, self.kept)
        return SplitRecord(shape, tuple(self.per_class), crc32, numbers, self.skipped)


def _make(request: Request, scanned: _Scanned) -> Manifest:
    """Make the folder beside its place and move it there when it is whole."""
    target = request.folder
    if target.exists():
        _log.warning("%s is made again: damaged, of another version, or of other files", target)
    folder = target.with_name(f"{target.name}.part")
    folder.mkdir(exist_ok=True)
    _check_space(folder, scanned.contents)
    parts: dict[str, _Part] = {}
    for name, split in scanned.contents.splits().items():
        path = image_file(folder, name)
        filled = fill(path, split.images, workers=request.workers)
        parts[name] = _Part(path, split, filled, scanned)
    skipped = {name: why for part in parts.values() for name, why in part.skipped.items()}
    _check_skipped(request, scanned.source, skipped)
    for name, part in parts.items():
        _check_classes(request, name, part)
    manifest = Manifest(
        version=VERSION,
        dataset=request.name,
        settings=request.settings,
        source=str(scanned.source),
        checksum=scanned.checksum,
        watched={**scanned.watched, **_times(scanned.source, skipped)},
        class_names=scanned.contents.class_names,
        splits={name: part.finish() for name, part in parts.items()},
    )
    manifest.write(folder)
    _move(folder, target)
    return manifest


def _check_space(folder: Path, contents: Contents) -> None:
    needed = 0
    for name, split in contents.splits().items():
        path = image_file(folder, name)
        there = path.stat().st_size if path.exists() else 0
        needed += len(split.images) * math.prod(split.images.sides) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: {needed / 1e9:,.1f} GB are needed, but {free / 1e9:,.1f} GB are free; "
            "ENGRAM_DATA or --root names another place"
        )


def _check_skipped(request: Request, source: Path, skipped: Mapping[str, str]) -> None:
    if not skipped or request.skip_corrupt:
        return
    lines = [f"\n  {source / name}: {why}" for name, why in skipped.items()]
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    raise DataError(
        f"{request.name}: {len(lines)} images cannot be used:{''.join(lines[:SHOWN])}{more}\n"
        f"Fetch them again, or leave them out by the data set's setting `{_SKIP}: true`."
    )


def _check_classes(request: Request, split: str, part: _Part) -> None:
    for name, images in zip(part.scanned.contents.class_names, part.per_class, strict=True):
        if not images:
            raise DataError(f"{request.name}: no image of class {name!r} is left in {split}")


def _move(folder: Path, target: Path) -> None:
    """Put a folder in the place of another; trials that have the other one mapped keep it."""
    if target.exists():
        target.replace(tempfile.mkdtemp(prefix=f"{target.name}.old-", dir=target.parent))
    folder.replace(target)


def _clear_away(target: Path) -> None:
    """Delete what is not needed any more, and what a run that was killed has left."""
    for journal in target.glob(f"*{JOURNAL}"):
        journal.unlink()
    for old in target.parent.glob(f"{target.name}.old-*"):
        shutil.rmtree(old, ignore_errors=True)

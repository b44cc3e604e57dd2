"""Decode a folder's pictures once, to one file of raw pixels that is then mapped into memory.

Decoding a hundred thousand JPEG files for every trial would cost more than many trials. The file
is a NumPy array of bytes (N, 3, S, S) in `ROOT/prepared`; its name says which pictures it was made
from, by their paths and sizes in bytes, and how, so that changed pictures make a new one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from harness.data.base import DataError, Split
from harness.data.cache import locked

BLOCK: Final = 256
"""Pictures decoded at once: 38 MB of pixels at 224x224, whatever the number of pictures."""

SUFFIXES: Final = frozenset({".jpeg", ".jpg"})
"""Of the files that are pictures, in small letters."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file: its path below the folder of its split, with "/" between names, and its labels."""

    path: str
    label: int
    domain: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The square, `size` pixels wide, that a picture becomes, by bilinear interpolation.

    "exact" squeezes the whole picture into it; "center_crop" scales the shorter side to it and
    cuts the middle out of the longer one; "none" refuses pictures of another size.
    """

    size: int
    resize: Literal["exact", "center_crop", "none"]


def picture_names(folder: Path, *, absent: str) -> list[str]:
    """Names of the pictures in a folder; other files, and hidden ones, are passed over.

    Raises:
        DataError: if it is not there, with what `absent` says to do, or holds no pictures.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {absent}")
    names = [
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    ]
    if not names:
        raise DataError(f"{folder}: holds no *.JPEG file")
    return names


def first_pictures(pictures: Sequence[Picture], count: int | None, *, where: Path) -> list[Picture]:
    """All pictures in the order of their paths, or the first `count` of each class and domain.

    Raises:
        DataError: if there are not so many; `where` they were looked for is named.
    """
    chosen = sorted(pictures, key=lambda picture: picture.path)
    if count is None:
        return chosen
    groups: dict[tuple[int, int | None], int] = defaultdict(int)
    kept: list[Picture] = []
    for picture in chosen:
        group = (picture.label, picture.domain)
        groups[group] += 1
        if groups[group] <= count:
            kept.append(picture)
    fewest = min(groups.values())
    if not 1 <= count <= fewest:
        raise DataError(f"{where}: {count} images a class were asked for; there are 1 to {fewest}")
    return kept


def decoded_split(
    folder: Path, pictures: Sequence[Picture], shape: Shape, *, name: str, root: Path
) -> Split:
    """The pictures as a split, in their order; images are decoded at the first call only.

    Args:
        folder: Which their paths are relative to.
        pictures: At least one.
        shape: What becomes of each.
        name: Of the split; the prepared file's name begins with it.
        root: The data root, which holds the folder of prepared files.

    Raises:
        DataError: if a picture is missing or damaged, or the file cannot be written.
    """
    paths = [picture.path for picture in pictures]
    target = root / "prepared" / f"{name}-{_digest(folder, paths, shape)}.npy"
    x = _prepared(target, folder, paths, shape)
    domains = [picture.domain for picture in pictures if picture.domain is not None]
    domain = torch.tensor(domains) if domains else None
    return Split(x, torch.tensor([picture.label for picture in pictures]), domain)


def _digest(folder: Path, paths: Sequence[str], shape: Shape) -> str:
    """16 hex digits for the paths, the sizes of the files, and the shape."""
    try:
        sizes = [(folder / path).stat().st_size for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    made_from = json.dumps([astuple(shape), list(zip(paths, sizes, strict=True))])
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _prepared(target: Path, folder: Path, paths: Sequence[str], shape: Shape) -> Tensor:
    """The images (N, 3, S, S) in `target`, which one process makes while others wait."""
    wanted = (len(paths), 3, shape.size, shape.size)
    stored = _stored(target, wanted)
    if stored is not None:
        return stored
    try:
        with locked(target):
            stored = _stored(target, wanted)  # another process may have made it meanwhile
            if stored is None:
                _log.info("making %s (once)", target)
                _write(target, folder, paths, shape)
                stored = _stored(target, wanted)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error})") from error
    if stored is None:
        raise DataError(f"{target}: was written, but cannot be read back")
    return stored


def _stored(target: Path, wanted: tuple[int, ...]) -> Tensor | None:
    """The file, mapped into memory; None if it is absent or damaged.

    The mapping is private (copy on write): PyTorch knows no tensors that cannot be written to.
    """
    if not target.exists():
        return None
    try:
        images = np.load(target, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        _log.warning("%s is damaged (%s): it is made again", target, error)
        return None
    if images.shape != wanted or images.dtype != np.uint8:
        _log.warning("%s holds %s %s: it is made again", target, images.shape, images.dtype)
        return None
    return torch.from_numpy(images)


def _write(target: Path, folder: Path, paths: Sequence[str], shape: Shape) -> None:
    """Make the file under another name, unique to this process, and rename it when it is whole."""
    handle, part = tempfile.mkstemp(prefix=target.name, suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write_blocks(file, folder, paths, shape)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)  # others on a shared disk may read it
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)


def _write_blocks(file: IO[bytes], folder: Path, paths: Sequence[str], shape: Shape) -> None:
    sides = (len(paths), 3, shape.size, shape.size)
    header: dict[str, object] = {"descr": "|u1", "fortran_order": False, "shape": sides}
    np.lib.format.write_array_header_1_0(file, header)
    # Threads, because Pillow lets go of the interpreter's lock while it decodes and resizes.
    with ThreadPoolExecutor() as pool:
        for block in _watched(paths, what=f"decoding {folder}"):
            for image in pool.map(lambda path: _pixels(folder / path, shape), block):
                file.write(image.tobytes())


def _watched(paths: Sequence[str], *, what: str) -> Iterator[Sequence[str]]:
    """The paths in blocks, with a progress line if somebody is watching."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with progress:
        task = progress.add_task(what, total=len(paths))
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield block
            progress.advance(task, len(block))


def _pixels(path: Path, shape: Shape) -> NDArray[np.uint8]:
    """One picture, gray or of four inks too, as (3, S, S).

    Raises:
        DataError: if it is missing, damaged, or of another size where that is not allowed.
    """
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: no readable image ({error}); fetch it again") from error
    if shape.resize == "none" and whole.size != (shape.size, shape.size):
        width, height = whole.size
        raise DataError(
            f"{path}: an image of {width}x{height} pixels, not {shape.size}x{shape.size}"
        )
    square = whole if shape.resize == "none" else _square(whole, shape)
    return np.asarray(square).transpose(2, 0, 1)


def _square(image: Image.Image, shape: Shape) -> Image.Image:
    """Sides and corners are rounded as by torchvision's Resize and CenterCrop."""
    size = shape.size
    if shape.resize == "exact":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + size, top + size))

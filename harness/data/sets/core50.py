"""CORe50: 164,866 video frames of 128x128 pixels, 50 objects in 11 sessions; objects are classes.

Lomonaco and Maltoni, 2017, arXiv:1705.03550, https://vlomonaco.github.io/core50. As in BrainCL
(arXiv:2504.14727) the last session tests and the other ten train. That is no benchmark of the
authors, who test on sessions 3, 7 and 10: session, object and frame are read from the path of an
image, `s3/o1/C_03_01_001.png`, and their lists of batches and labels are not used. Five consecutive
objects are of one category, so tasks of five in natural order tell like from like.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.data.base import DataError, Dataset, Split, Traits, first_whole
from harness.data.cache import locked
from harness.data.decode import Picture, Shape, decoded_split
from harness.data.npz import stored_rows, stored_shape
from harness.data.pickles import read_words

SOURCE = (
    "core50_128x128.zip of https://vlomonaco.github.io/core50, unpacked as "
    "ROOT/core50/core50_128x128, or core50_imgs.npz and paths.pkl of the same page in ROOT/core50"
)

SESSIONS: Final = range(1, 12)
OBJECTS: Final = range(1, 51)
CATEGORIES: Final = (
    *("plug_adapter", "mobile_phone", "scissor", "light_bulb", "can"),
    *("glass", "ball", "marker", "cup", "remote_control"),
)
"""Of five objects each, in their order (github.com/vlomonaco/core50, extras/core50_labels.txt)."""

_FOLDER: Final = "core50_128x128"
_ARRAY: Final = "core50_imgs.npz"
_PATHS: Final = "paths.pkl"
_FRAME: Final = re.compile(r"s(\d+)/o(\d+)/C_(\d+)_(\d+)_(\d+)\.png")


@dataclass(frozen=True, slots=True)
class Config:
    size: int = 224  # side of an image, in pixels
    test_sessions: tuple[int, ...] = (11,)  # of 1 to 11; the others train
    # How many training images of each class, evenly spaced over its frames, since neighbours are
    # almost equal; None: all
    per_class: int | None = None
    test_per_class: int | None = None  # likewise of the test images

    def __post_init__(self) -> None:
        chosen = set(self.test_sessions)
        if len(chosen) < len(self.test_sessions) or not set() < chosen < set(SESSIONS):
            raise DataError("test_sessions must be some, not all, of the sessions 1 to 11")
        if self.size < 1:
            raise DataError("size must be at least 1")


class Frame(NamedTuple):
    """One image. Frames are ordered by session, object and number, in whatever order they lie."""

    session: int
    instance: int  # the object, from 1
    number: int
    path: str  # relative to the folder of the sessions
    row: int  # in the list that it was found in


def num_classes(config: Config) -> int:
    del config
    return len(OBJECTS)


def image_shape(config: Config) -> tuple[int, int, int]:
    return 3, config.size, config.size


def load(config: Config, root: Path) -> Dataset:
    folder = first_whole("core50", (root / "core50", root), missing=_missing, source=SOURCE)
    in_files = (folder / _FOLDER).is_dir()
    frames = _files(folder / _FOLDER) if in_files else _rows(folder)
    read = _decoded if in_files else _unpacked

    def split(part: str, count: int | None) -> Split:
        mine = [f for f in frames if (f.session in config.test_sessions) == (part == "test")]
        chosen = spread(mine, count, where=f"{folder}, {part}")
        return read(folder, chosen, config.size, name=f"core50-{part}", root=root)

    train, test = split("train", config.per_class), split("test", config.test_per_class)
    names = tuple(f"{category}{n}" for category in CATEGORIES for n in range(1, 6))
    # ImageNet's constants and a border of an eighth of the side: not stated in BrainCL.
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    traits = Traits(mean, std, flip=True, crop_padding=config.size // 8)
    return Dataset("core50", train, test, names, traits)


def spread(frames: Sequence[Frame], count: int | None, *, where: str) -> list[Frame]:
    """`count` frames of each object, evenly spaced over its sorted frames; None keeps all.

    Raises:
        DataError: if there are not so many; `where` they were looked for is named.
    """
    ordered = sorted(frames)
    if count is None:
        return ordered
    of_object: dict[int, list[Frame]] = defaultdict(list)
    for frame in ordered:
        of_object[frame.instance].append(frame)
    fewest = min(map(len, of_object.values()))
    if not 1 <= count <= fewest:
        raise DataError(f"{where}: {count} images a class were asked for; there are 1 to {fewest}")
    return sorted(own[i * len(own) // count] for own in of_object.values() for i in range(count))


def _missing(folder: Path) -> list[str]:
    if (folder / _FOLDER).is_dir() or all((folder / name).is_file() for name in (_ARRAY, _PATHS)):
        return []
    return [f"{_FOLDER} (or {_ARRAY} and {_PATHS})"]


def _frames(paths: Sequence[str], *, where: Path) -> list[Frame]:
    """What the paths say; there must be a frame of every object in every session."""
    frames: list[Frame] = []
    for row, path in enumerate(paths):
        match = _FRAME.fullmatch(path)
        numbers = [int(group) for group in match.groups()] if match else []
        if not numbers or numbers[:2] != numbers[2:4]:
            raise DataError(
                f"{where}: {path!r} is no path of a frame, such as s3/o1/C_03_01_001.png"
            )
        frames.append(Frame(numbers[0], numbers[1], numbers[4], path, row))
    found = {(frame.session, frame.instance) for frame in frames}
    wanted = {(session, instance) for session in SESSIONS for instance in OBJECTS}
    if found != wanted:
        session, instance = min(found ^ wanted)
        fault = "an unknown" if (session, instance) in found else "no"
        raise DataError(f"{where}: {fault} frame of object {instance} in session {session}")
    return frames


def _files(folder: Path) -> list[Frame]:
    """The frames below the folder of the sessions; other files are passed over."""
    paths = [path.relative_to(folder).as_posix() for path in folder.glob("s*/o*/C_??_??_???.png")]
    return _frames(paths, where=folder)


def _rows(folder: Path) -> list[Frame]:
    """The frames in the array of images, whose rows are those of the list of paths."""
    frames = _frames(read_words(folder / _PATHS), where=folder / _PATHS)
    shape, dtype = stored_shape(folder / _ARRAY, "x")
    if len(shape) != 4 or (shape[0], shape[-1]) != (len(frames), 3) or dtype != np.uint8:
        raise DataError(
            f"{folder / _ARRAY}: x is {dtype} of shape {shape}, not {len(frames)} images of bytes, "
            f"one for each line of {_PATHS}"
        )
    return frames


def _decoded(folder: Path, frames: Sequence[Frame], size: int, *, name: str, root: Path) -> Split:
    """Frames of the folder of PNG files."""
    pictures = [Picture(frame.path, frame.instance - 1) for frame in frames]
    return decoded_split(folder / _FOLDER, pictures, Shape(size, "exact"), name=name, root=root)


def _unpacked(folder: Path, frames: Sequence[Frame], size: int, *, name: str, root: Path) -> Split:
    """Frames of the array of images: as if they had been decoded from files."""
    path, rows = folder / _ARRAY, np.array([frame.row for frame in frames])
    made_from = json.dumps([size, path.stat().st_size, rows.tolist()])
    digest = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    target = root / "prepared" / f"{name}-{digest}.npy"
    try:
        if not target.is_file():
            with locked(target):
                if not target.is_file():  # another process may have made it meanwhile
                    _write(target, path, rows, size)
        images = np.load(target, mmap_mode="c", allow_pickle=False)  # as in decode
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{target}: cannot be written, or is to be deleted ({error})") from error
    labels = torch.tensor([frame.instance - 1 for frame in frames])
    return Split(torch.from_numpy(images), labels)


def _write(target: Path, path: Path, rows: NDArray[np.int64], size: int) -> None:
    """Resize rows of an array to a file (N, 3, S, S) in their order, which need not ascend."""
    part = target.with_name(f"{target.name}.part")
    order = rows.argsort()
    places = iter(order.tolist())
    try:
        images = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.uint8, shape=(len(rows), 3, size, size)
        )
        for block in stored_rows(path, "x", rows[order]):
            for image in block:
                whole = Image.fromarray(image)
                square = whole.resize((size, size), Image.Resampling.BILINEAR)
                images[next(places)] = np.asarray(square).transpose(2, 0, 1)
        images.flush()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

"""CORe50: 164,866 video frames of 128x128 pixels, 50 objects in 11 sessions; objects are classes.

Lomonaco and Maltoni, 2017, arXiv:1705.03550, https://vlomonaco.github.io/core50. As in BrainCL
(arXiv:2504.14727) the last session tests and the other ten train. That is no benchmark of the
authors, who test on sessions 3, 7 and 10: session, object and frame are read from the path of an
image, `s3/o1/C_03_01_001.png`, and their lists of batches and labels are not used. Five consecutive
objects are of one category, so tasks of five in natural order tell like from like.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.data.base import DataError, Traits
from harness.data.decoder import Shape, resized
from harness.data.npz import stored_rows, stored_shape
from harness.data.official import Official
from harness.data.pickles import read_words
from harness.data.source import Contents, Picture, Rows, SplitSource, Stored

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
    skip_corrupt: bool = False  # leave out files that cannot be decoded

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


def traits(config: Config) -> Traits:
    # ImageNet's constants and a border of an eighth of the side: not stated in BrainCL.
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Traits(mean, std, flip=True, crop_padding=config.size // 8)


def official(config: Config) -> Official:
    return Official(
        licence="CC BY 4.0",
        size="4.2 GB (zip), 164,866 images; prepared 25 GB at 224 pixels",
        train=config.per_class,  # some sessions of some objects have fewer than 300 frames
        test=config.test_per_class,
    )


def places(root: Path) -> tuple[Path, ...]:
    return root / "core50", root


def missing(folder: Path, config: Config) -> list[str]:
    del config
    if (folder / _FOLDER).is_dir() or all((folder / name).is_file() for name in (_ARRAY, _PATHS)):
        return []
    return [f"{_FOLDER} (or {_ARRAY} and {_PATHS})"]


def scan(folder: Path, config: Config) -> Contents:
    """The frames, of the folder of files if it is there, else of the array.

    Raises:
        DataError: if an object has no frame in a session, or there are others.
    """
    in_files = (folder / _FOLDER).is_dir()
    frames = _files(folder / _FOLDER) if in_files else _rows(folder)

    def split(part: str, count: int | None) -> SplitSource:
        mine = [f for f in frames if (f.session in config.test_sessions) == (part == "test")]
        chosen = spread(mine, count, where=f"{folder}, {part}")
        shape = Shape(config.size, "exact")
        return _decoded(folder, chosen, shape) if in_files else _unpacked(folder, chosen, shape)

    names = tuple(f"{category}{n}" for category in CATEGORIES for n in range(1, 6))
    watched = (folder / _FOLDER,) if in_files else ()
    train, test = split("train", config.per_class), split("test", config.test_per_class)
    return Contents(train, test, names, watched)


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


def _decoded(folder: Path, frames: Sequence[Frame], shape: Shape) -> SplitSource:
    """Frames of the folder of PNG files."""
    pictures = [Picture(f.path, f.instance - 1, session=f.session) for f in frames]
    return SplitSource.of_pictures(folder / _FOLDER, pictures, shape)


def _unpacked(folder: Path, frames: Sequence[Frame], shape: Shape) -> SplitSource:
    """Frames of the array of images: as if they had been decoded from files."""
    path = folder / _ARRAY
    rows = np.array([frame.row for frame in frames])
    sides = (3, shape.size, shape.size)
    images = Stored((path, folder / _PATHS), sides, len(rows), partial(_read, path, rows, shape))
    labels = torch.tensor([frame.instance - 1 for frame in frames])
    return SplitSource(images, labels, session=torch.tensor([frame.session for frame in frames]))


def _read(path: Path, rows: NDArray[np.int64], shape: Shape) -> Iterator[Rows]:
    """Rows of the array, resized, in the order in which they are stored."""
    order, start = rows.argsort(), 0
    for block in stored_rows(path, "x", rows[order]):
        images = [
            np.asarray(resized(Image.fromarray(image), shape)).transpose(2, 0, 1) for image in block
        ]
        if images:
            yield order[start : start + len(images)], np.stack(images)
        start += len(images)

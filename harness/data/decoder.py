"""Decode picture files to squares of raw pixels. Worker processes import this, so torch is not.

Work is cut into blocks of `BLOCK` pictures. A block's images are consecutive rows of one file, and
what a worker tells of it is enough to know later that they are there and whole.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.data.image_file import BLOCK, write_at

VERSION: Final = 1
"""To be raised whenever a pixel of any data set changes, or the layout of what is prepared."""

FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
"""That a picture may have, whatever its name; ImageNet has a PNG that is called .JPEG."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The square, `size` pixels wide, that a picture becomes, by bilinear interpolation.

    "exact" squeezes the whole picture into it; "center_crop" scales the shorter side to it and
    cuts the middle out of the longer one; "none" refuses pictures of another size.
    """

    size: int
    resize: Literal["exact", "center_crop", "none"]


@dataclass(frozen=True, slots=True)
class Block:
    """Pictures to decode into consecutive rows of a file of images.

    Attributes:
        number: of the block, from 0.
        folder: which the paths are relative to.
        files: path and size in bytes of each picture.
        shape: what becomes of each.
    """

    number: int
    folder: str
    files: Sequence[tuple[str, int]]
    shape: Shape

    @property
    def made_from(self) -> str:
        """Digest of the paths, the sizes of the files, and the shape."""
        return digest(list(self.files), astuple(self.shape))


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of a block when its images are in the file.

    `faults` says of pictures that could not be decoded, by their place in the block, why; their
    rows are black. `crc32` is that of the rows.
    """

    number: int
    made_from: str
    crc32: int
    faults: dict[int, str]


class UnreadableError(ValueError):
    """A picture cannot be decoded; the message says why."""


def digest(*made_from: object) -> str:
    """16 hex digits for what images are made from, and for the version of how."""
    return hashlib.sha256(repr((VERSION, *made_from)).encode()).hexdigest()[:16]


def decode_block(block: Block, target: str) -> Decoded:
    """Decode a block into its rows of the file of images `target`.

    Raises:
        OSError: if the file cannot be written.
    """
    crc, faults = 0, dict[int, str]()
    with Path(target).open("r+b", buffering=0) as file:
        for place, (path, _) in enumerate(block.files):
            try:
                image = pixels(Path(block.folder, path), block.shape)
            except UnreadableError as error:
                faults[place] = str(error)
                image = np.zeros((3, block.shape.size, block.shape.size), np.uint8)
            crc = zlib.crc32(image.data, crc)
            write_at(file, image[None], block.number * BLOCK + place)
    return Decoded(block.number, block.made_from, crc, faults)


def pixels(path: Path, shape: Shape) -> NDArray[np.uint8]:
    """One picture, gray or of four inks too, as (3, S, S).

    Raises:
        UnreadableError: if it is missing, damaged, or of another size where that is not allowed.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            whole = image.convert("RGB")
    except UnidentifiedImageError as error:
        raise UnreadableError("no image") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnreadableError(f"no readable image ({reason})") from error
    if shape.resize == "none" and whole.size != (shape.size, shape.size):
        width, height = whole.size
        raise UnreadableError(f"an image of {width}x{height} pixels, not {shape.size}x{shape.size}")
    square = whole if shape.resize == "none" else resized(whole, shape)
    planes = b"".join(plane.tobytes() for plane in square.split())
    return np.frombuffer(planes, np.uint8).reshape(3, shape.size, shape.size)


def resized(image: Image.Image, shape: Shape) -> Image.Image:
    """Sides and corners are rounded as by torchvision's Resize and CenterCrop."""
    size = shape.size
    if shape.resize == "exact":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + size, top + size))


def serve(handle: int) -> None:
    """Be a worker process: decode what arrives at a connection until its other end is closed.

    Args:
        handle: Of the connection. Blocks and their targets arrive; answers are `Decoded`, or the
            OSError of a file that cannot be written.
    """
    parent, waiting = Connection(handle), SimpleQueue[tuple[Block, str]]()
    Thread(target=_receive, args=(parent, waiting), daemon=True).start()
    while True:
        try:
            answer = decode_block(*waiting.get())
        except OSError as error:
            answer = error
        with suppress(ConnectionError):  # the other thread knows it as well
            parent.send(answer)


def _receive(parent: Connection, waiting: SimpleQueue[tuple[Block, str]]) -> None:
    while True:
        try:
            waiting.put(parent.recv())
        except (EOFError, ConnectionError):  # the parent has been killed, or needs no more
            os._exit(0)

"""JPEG files to decode, what another library makes of them, and what is prepared from them."""

import multiprocessing
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

SIDES = ((40, 31), (23, 57), (12, 9), (24, 24), (64, 25))  # width and height; larger and smaller


def write_picture(path, number, mode="RGB"):
    """A smooth random JPEG whose size, shape and content depend on its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize(SIDES[number % len(SIDES)], Image.Resampling.BICUBIC)
    image.convert(mode).save(path, format="JPEG")


def spoil(path):
    """Overwrite a file so that it is no picture any more, but of the same size in bytes."""
    path.write_bytes(b"x" * path.stat().st_size)


def reference(path, size, *, exact):
    """What torchvision makes of a file, uint8 (3, size, size)."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    image = resize(image, [size, size] if exact else [size])
    return pil_to_tensor(image if exact else center_crop(image, [size, size]))


def prepared(root):
    """Names of the folders below a data root that hold a prepared set, or say so."""
    folders = (path for path in (root / "prepared").glob("*") if path.is_dir())
    return sorted(path.name for path in folders if path.suffix != ".part")


def forked(function, *args):
    """A process that runs a function and was just started; it does not outlive this one."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=function, args=args, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, if there are threads
        process.start()
    return process


def eventually(condition):
    """Wait until something is true; it must be so within some seconds."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def workers_of(pid):
    """Process numbers of the living children of a process (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid):
    """Whether a process has not ended; one that nobody waits for has (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

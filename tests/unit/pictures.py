"""JPEG files to decode, and what another library makes of them."""

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


def reference(path, size, *, exact):
    """What torchvision makes of a file, uint8 (3, size, size)."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    image = resize(image, [size, size] if exact else [size])
    return pil_to_tensor(image if exact else center_crop(image, [size, size]))


def prepared(root):
    """Names of the files of decoded pixels below a data root."""
    return sorted(path.name for path in (root / "prepared").iterdir() if path.suffix != ".lock")

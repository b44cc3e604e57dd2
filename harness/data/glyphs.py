"""A generator of 32x32 RGB images of 100 characters: a stand-in for CIFAR-100 without a download.

Every image shows one character in one of the twelve DejaVu faces that matplotlib ships, under a
random similarity plus shear, in random colours over a textured background with distractor strokes,
occasional blur, and noise. One integer seed fixes every pixel: each (seed, split, class) owns a
random stream that is read row by row, so a smaller `per_class` yields exactly the leading images
of each class. Classes stand in the order of their scripts, so shuffle the class order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.data.base import DataError, Dataset, Split, Traits, channel_statistics
from harness.data.cache import Arrays, cached_arrays

# Screened so that no two entries exceed cosine 0.95 over all faces and rotations of +-20 degrees.
CHARS = (
    "ABDEGHJKLMNPQRSTUVWXYZ"
    "23479"
    "aefhkmnrty"
    "ΔΞΣΦΨαβδζηλμξω"
    "ДЖЛЦЧЪЫЮЯЭЂ"
    "#$%&?!@+=*<>{~∞√∂∇≈≠≤±→←↑■▲♠♥♦♪♫€£§¶©☺"
)
FACES = (
    *("DejaVuSans" + v for v in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *("DejaVuSansMono" + v for v in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *("DejaVuSerif" + v for v in ("", "-Bold", "-Italic", "-BoldItalic")),
)
SIDE = 32  # of an image, in pixels
CANVAS = 40  # side of a mask
BOX = 32  # longest side of a glyph within its mask
GRID = 5  # side of the lattice behind the background's texture
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
GENERATOR_VERSION = 1  # to be raised whenever a pixel changes

# First digits of the SHA-256 of the 10,000 default test images, (N, 32, 32, 3), made with Pillow
# 13.0.0, matplotlib 3.11.2 and numpy 2.4.6 on x86-64.
TEST_DIGEST = "cf4a6f637b80ebba"

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Style:
    """Nuisance ranges; the defaults are the benchmark, other values give other variants."""

    size: tuple[float, float] = (17.0, 27.0)  # longest glyph side, in pixels
    rotate: float = 25.0  # degrees, either way
    shear: float = 0.25  # horizontal shear factor, either way
    shift: float = 1.0  # share of the free margin that the centre may use
    contrast: tuple[float, float] = (0.30, 0.70)  # |luminance(glyph) - luminance(background)|
    saturation: float = 0.5  # how far colours leave the grey axis
    gradient: float = 0.12  # half the luminance change of a linear ramp across the image
    texture: float = 0.12  # amplitude of smooth coloured background noise
    noise: float = 0.06  # amplitude of independent pixel noise
    strokes: int = 2  # at most this many distractor lines behind the glyph
    stroke_prob: float = 0.4  # chance of each of them
    blur_prob: float = 0.25  # chance of a (partial) 3x3 blur


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the generated sets; the defaults have the split sizes of CIFAR-100."""

    classes: int = 100  # the first of the 100 characters
    per_class: int = 500  # training images of each class
    test_per_class: int | None = None  # None: a fifth of per_class
    seed: int = 0  # of the pixels; independent of a trial's seed

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= len(CHARS):
            raise DataError(f"classes is {self.classes}: there are 1 to {len(CHARS)} characters")
        if self.per_class < 1 or self.tests_per_class < 1:
            raise DataError("per_class and test_per_class must be at least 1")
        if self.seed < 0:
            raise DataError(f"seed is {self.seed}: it must not be negative")

    @property
    def tests_per_class(self) -> int:
        """Test images of each class."""
        return max(1, self.per_class // 5) if self.test_per_class is None else self.test_per_class


def glyph_dataset(name: str, style: Style, config: Config, root: Path) -> Dataset:
    """The set in this style, made once and then read from a file below `root`/glyphs100.

    Mean and standard deviation are those of the training images.
    """

    def make() -> Arrays:
        sizes = {"train": config.per_class, "test": config.tests_per_class}
        return {
            split: glyphs(
                style, split=split, classes=range(config.classes), per_class=size, seed=config.seed
            )
            for split, size in sizes.items()
        }

    arrays = cached_arrays(root / "glyphs100" / _file_name(style, config), make)
    if (style, config) == (Style(), Config()):
        _check_pixels(arrays["test"])
    train, test = (_split(arrays[split], config.classes) for split in ("train", "test"))
    mean, std = channel_statistics(train.x)
    # No flip: a mirrored R is another class. Reflection keeps the texture of the background.
    traits = Traits(mean, std, flip=False, crop_padding=4, crop_mode="reflect")
    return Dataset(name, train, test, tuple(CHARS[: config.classes]), traits)


def glyphs(
    style: Style, *, split: str, classes: Sequence[int], per_class: int, seed: int = 0
) -> Bytes:
    """Images (N, 3, 32, 32) of a split ("train" or "test"), class by class."""
    # uniforms reserved for an image
    row = 32 + GRID * GRID * 3 + 16 * style.strokes + SIDE * SIDE * 3
    images = np.empty((len(classes), per_class, 3, SIDE, SIDE), np.uint8)
    for into, label in zip(images, classes, strict=True):
        stream = np.random.default_rng([seed, int(split == "train"), label])
        uniforms = stream.random((per_class, row), dtype=np.float32)
        into[...] = _draw(uniforms, glyph_masks()[label], style).transpose(0, 3, 1, 2)
    return images.reshape(-1, 3, SIDE, SIDE)


@cache
def glyph_masks() -> list[Floats]:
    """One (faces, CANVAS, CANVAS) coverage stack in [0, 1] a character.

    Faces that lack the character are left out of its stack.
    """
    import matplotlib  # not needed where the images are cached
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    stacks: list[list[Floats]] = [[] for _ in CHARS]
    for face in FACES:
        path = str(folder / f"{face}.ttf")
        covered = FT2Font(path).get_charmap()
        font = ImageFont.truetype(path, 96, layout_engine=ImageFont.Layout.BASIC)
        for char, stack in zip(CHARS, stacks, strict=True):
            if ord(char) in covered:
                stack.append(_mask(char, font))
    return [np.stack(stack) for stack in stacks]


def _mask(char: str, font: ImageFont.FreeTypeFont) -> Floats:
    """One character, its longest side BOX pixels, in the middle of a CANVAS x CANVAS mask."""
    sheet = Image.new("L", (256, 256))
    ImageDraw.Draw(sheet).text((64, 64), char, font=font, fill=255)
    glyph = sheet.crop(sheet.getbbox())
    zoom = BOX / max(glyph.size)
    width, height = (max(1, round(zoom * side)) for side in glyph.size)
    mask = Image.new("L", (CANVAS, CANVAS))
    corner = ((CANVAS - width) // 2, (CANVAS - height) // 2)
    mask.paste(glyph.resize((width, height), Image.Resampling.BOX), corner)
    return np.asarray(mask, np.float32) / 255


class _Uniforms:
    """Hands out the columns of uniforms (n, ROW) from left to right."""

    def __init__(self, columns: Floats) -> None:
        self._columns = columns
        self._taken = 0

    def __call__(self, low: float, high: float, width: int = 1) -> Floats:
        """The next columns, (n, width), scaled to [low, high)."""
        self._taken += width
        return low + (high - low) * self._columns[:, self._taken - width : self._taken]

    def colour(self, luminance: Floats, saturation: float) -> Floats:
        """Random colours (n, 3) of the given luminance (n, 1)."""
        rgb = self(0, 1, 3)
        return luminance + saturation * (rgb - (rgb * LUMA).sum(1, keepdims=True))


def _draw(uniforms: Floats, masks: Floats, style: Style) -> Bytes:
    """Turn each row of uniforms (n, ROW) into an image (32, 32, 3) of a character of these masks.

    The order in which the stages take their columns is part of the data set.
    """
    uni = _Uniforms(uniforms)
    axis = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    py, px = (v.reshape(1, -1) for v in np.meshgrid(axis, axis, indexing="ij"))
    glyph = _coverage(uni, masks, style, px, py)
    base = uni(0.05, 0.95)
    ink, ground = _inks(uni, base, style)
    image = _background(uni, ground, style, px, py)
    for _ in range(style.strokes):
        _stroke(uni, image, base, style, px, py)
    image += glyph[..., None] * (ink[:, None] - image)
    image = image.reshape(-1, SIDE, SIDE, 3)
    _blur(uni, image, style)
    image += uni(-style.noise, style.noise, SIDE * SIDE * 3).reshape(image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _coverage(uni: _Uniforms, masks: Floats, style: Style, px: Floats, py: Floats) -> Floats:
    """How much of each pixel (n, 1024) the glyph covers.

    Goes from output pixels to mask pixels: undo shift, rotation, scale and shear.
    """
    which = (uni(0, 1)[:, 0] * len(masks)).astype(np.int64)
    size = uni(*style.size)
    angle = np.deg2rad(uni(-style.rotate, style.rotate))
    shear = uni(-style.shear, style.shear)
    margin = style.shift * (SIDE - size) / 2
    dx, dy = px - margin * uni(-1, 1), py - margin * uni(-1, 1)
    qx = (np.cos(angle) * dx + np.sin(angle) * dy) * (BOX / size)
    qy = (np.cos(angle) * dy - np.sin(angle) * dx) * (BOX / size)
    return _bilinear(masks, which, qx + shear * qy + (CANVAS - 1) / 2, qy + (CANVAS - 1) / 2)


def _bilinear(masks: Floats, which: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
    """Sample masks[which[i]] at pixel coordinates x[i], y[i]; outside, a mask's border is empty."""
    x, y = (np.clip(v, 0, CANVAS - 1.001) for v in (x, y))
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = x - x0, y - y0
    at = which[:, None].astype(np.int32) * CANVAS**2 + y0 * CANVAS + x0
    flat = masks.ravel()
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    return top * (1 - fy) + (flat[at + CANVAS] * (1 - fx) + flat[at + CANVAS + 1] * fx) * fy


def _inks(uni: _Uniforms, base: Floats, style: Style) -> tuple[Floats, Floats]:
    """Colours (n, 3) of the glyph and of its ground, whose luminance is base (n, 1).

    The glyph goes lighter or darker at random where both fit, otherwise to the roomier side.
    """
    gap, coin = uni(*style.contrast), uni(-1, 1)
    fits = (base + gap <= 1) & (base - gap >= 0)
    sign = np.where(fits, np.sign(coin), np.where(base < 0.5, 1.0, -1.0)).astype(np.float32)
    ink = uni.colour(base + sign * gap, style.saturation)
    return ink, uni.colour(base, style.saturation)


def _background(uni: _Uniforms, ground: Floats, style: Style, px: Floats, py: Floats) -> Floats:
    """Images (n, 1024, 3): a colour, a linear ramp and a smooth coloured texture."""
    way, steep = uni(0, 2 * np.pi), uni(0, style.gradient)
    ramp = steep * (np.cos(way) * px + np.sin(way) * py) / (SIDE / 2)
    pos = np.linspace(0, GRID - 1.001, SIDE, dtype=np.float32)
    cell = pos.astype(int)
    part = pos - cell  # element-wise interpolation: a BLAS call would round by batch size
    lattice = uni(-1, 1, GRID * GRID * 3).reshape(-1, GRID, GRID, 3)
    lattice = lattice * uni(0, style.texture)[..., None, None]
    rows = lattice[:, cell] + part[:, None, None] * (lattice[:, cell + 1] - lattice[:, cell])
    image = rows[:, :, cell] + part[:, None] * (rows[:, :, cell + 1] - rows[:, :, cell])
    image = image.reshape(len(ground), -1, 3)
    image += ground[:, None] + ramp[..., None]
    return image


def _stroke(
    uni: _Uniforms, image: Floats, base: Floats, style: Style, px: Floats, py: Floats
) -> None:
    """Draw a line segment; its coverage falls off with the distance from the segment."""
    ax, ay, bx, by = (uni(-SIDE / 2, SIDE / 2) for _ in range(4))
    t = ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 + 1e-6)
    t = np.clip(t, 0, 1)
    far = np.hypot(px - ax - t * (bx - ax), py - ay - t * (by - ay))
    cover = np.clip(uni(0.8, 1.5) + 0.5 - far, 0, 1) * (uni(0, 1) < style.stroke_prob)
    colour = uni.colour(base + uni(-0.5, 0.5), style.saturation)
    image += cover[..., None] * (colour[:, None] - image)


def _blur(uni: _Uniforms, image: Floats, style: Style) -> None:
    """Move some images (n, 32, 32, 3) a random part of the way to their 3x3 means."""
    pad = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    soft = (pad[:, :-2] + pad[:, 1:-1] + pad[:, 2:]) / 3
    soft = (soft[:, :, :-2] + soft[:, :, 1:-1] + soft[:, :, 2:]) / 3
    image += (uni(0.3, 1) * (uni(0, 1) < style.blur_prob))[..., None, None] * (soft - image)


def _file_name(style: Style, config: Config) -> str:
    """Names everything that a pixel depends on; Pillow and matplotlib's fonts draw the glyphs."""
    drawn_by = (GENERATOR_VERSION, version("pillow"), version("matplotlib"))
    digest = hashlib.sha256(repr((astuple(style), drawn_by)).encode()).hexdigest()[:12]
    sizes = f"{config.classes}x{config.per_class}+{config.tests_per_class}"
    return f"{sizes}-seed{config.seed}-{digest}.npz"


def _check_pixels(test: Bytes) -> None:
    digest = hashlib.sha256(test.transpose(0, 2, 3, 1).tobytes()).hexdigest()[:16]
    if digest != TEST_DIGEST:
        _log.warning("glyphs100: other pixels than published (%s, not %s)", digest, TEST_DIGEST)


def _split(images: Bytes, classes: int) -> Split:
    labels = torch.arange(classes).repeat_interleave(len(images) // classes)
    return Split(torch.from_numpy(images), labels)

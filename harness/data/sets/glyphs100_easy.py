"""The characters of glyphs100 with milder distortions, for tests that train for seconds.

Drawn by `harness.data.glyphs` from the DejaVu fonts that matplotlib ships (Bitstream Vera licence).
"""

from __future__ import annotations

from pathlib import Path

from harness.data.base import Dataset
from harness.data.glyphs import SIDE, Config, Style, glyph_dataset

SOURCE = "generated here from matplotlib's fonts in some 15 s, then cached; nothing to download"

STYLE = Style(
    size=(20.0, 27.0),
    rotate=15.0,
    shear=0.15,
    contrast=(0.4, 0.7),
    saturation=0.35,
    texture=0.08,
    noise=0.04,
    stroke_prob=0.2,
)


def num_classes(config: Config) -> int:
    return config.classes


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 3, SIDE, SIDE


def load(config: Config, root: Path) -> Dataset:
    return glyph_dataset("glyphs100_easy", STYLE, config, root)

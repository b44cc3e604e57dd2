"""100 characters as 50,000 + 10,000 generated 32x32 RGB images, with the split sizes of CIFAR-100.

Drawn by `harness.data.glyphs` from the DejaVu fonts that matplotlib ships (Bitstream Vera licence).
"""

from __future__ import annotations

from pathlib import Path

from harness.data.base import Dataset
from harness.data.glyphs import SIDE, Config, Style, glyph_dataset

SOURCE = "generated here from matplotlib's fonts in some 15 s, then cached; nothing to download"


def num_classes(config: Config) -> int:
    return config.classes


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 3, SIDE, SIDE


def load(config: Config, root: Path) -> Dataset:
    return glyph_dataset("glyphs100", Style(), config, root)

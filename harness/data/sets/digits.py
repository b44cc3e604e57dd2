"""1,797 handwritten digits as 8x8 grey images, which scikit-learn ships (UCI, CC BY 4.0).

The test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998,
https://doi.org/10.24432/C50P49). Every fourth image of each class, counted in the order of the
file from the first, is a test image here, whatever the seed. The values 0 to 16 become
round(value * 255 / 16). Mean and standard deviation are those of the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.data.base import Dataset, Split, Traits, channel_statistics

SOURCE = "part of scikit-learn; nothing to download"


@dataclass(frozen=True, slots=True)
class Config:
    """The set has no settings."""


def num_classes(config: Config) -> int:
    del config
    return 10


def image_shape(config: Config) -> tuple[int, int, int]:
    del config
    return 1, 8, 8


def load(config: Config, root: Path) -> Dataset:
    del config, root
    from sklearn.datasets import load_digits  # a second to import: not for a list of the sets

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))
    held_out = torch.zeros(len(y), dtype=torch.bool)
    for label in range(10):
        held_out[(y == label).nonzero()[::4, 0]] = True
    train, test = Split(x[~held_out], y[~held_out]), Split(x[held_out], y[held_out])
    mean, std = channel_statistics(train.x)
    return Dataset("digits", train, test, tuple("0123456789"), Traits(mean, std))

"""The corruptions by name, in the order of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.data.corruptions import blur, digital, noise, weather
from harness.data.corruptions.pixels import Corruption

FAMILIES: Final[Mapping[str, Mapping[str, Corruption]]] = {
    "noise": {
        "gaussian_noise": noise.gaussian_noise,
        "shot_noise": noise.shot_noise,
        "impulse_noise": noise.impulse_noise,
    },
    "blur": {
        "defocus_blur": blur.defocus_blur,
        "glass_blur": blur.glass_blur,
        "motion_blur": blur.motion_blur,
        "zoom_blur": blur.zoom_blur,
    },
    "weather": {
        "snow": weather.snow,
        "frost": weather.frost,
        "fog": weather.fog,
        "brightness": weather.brightness,
    },
    "digital": {
        "contrast": digital.contrast,
        "elastic_transform": digital.elastic_transform,
        "pixelate": digital.pixelate,
        "jpeg_compression": digital.jpeg_compression,
    },
}

CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    name: corruption for family in FAMILIES.values() for name, corruption in family.items()
}

"""The networks between images and cues: BrainCL's pattern separation and pattern completion.

BrainCL (arXiv:2504.14727) gives widths, strides and ReLU; they are those of the factorized-prior
model of Ballé et al. (2018, arXiv:1802.01436) as InterDigitalInc/CompressAI builds it
(`FactorizedPriorReLU`, compressai/models/google.py). As there, and not stated in the paper, the
last layer of each network is linear: cues need both signs. A cue is rounded to integers. Training
adds noise of the same width instead, as rounding has no gradient (Ballé et al., 2017,
arXiv:1611.01704).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL: Final = 5  # the paper


def separation(image_channels: int, channels: int, cue_channels: int, stages: int) -> nn.Sequential:
    """From images (B, C, H, W) to cues before rounding (B, cue_channels, h, w).

    Each of the `stages` (at least 1) halves the sides, rounding up; all but the last have
    `channels` channels.
    """
    layers: list[nn.Module] = []
    for into, out in pairwise([image_channels, *[channels] * (stages - 1), cue_channels]):
        convolution = nn.Conv2d(into, out, KERNEL, stride=2, padding=KERNEL // 2)
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def completion(cue_channels: int, channels: int, image_channels: int, stages: int) -> nn.Sequential:
    """From cues (B, cue_channels, h, w) to images (B, C, H, W), sides doubled by every stage."""
    layers: list[nn.Module] = []
    for into, out in pairwise([cue_channels, *[channels] * (stages - 1), image_channels]):
        convolution = nn.ConvTranspose2d(
            into, out, KERNEL, stride=2, padding=KERNEL // 2, output_padding=1
        )
        layers += [convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def padded(x: Tensor, multiple: int) -> Tensor:
    """Images (B, C, H, W) with sides that are multiples, for `separation` of log2 as many stages.

    What is missing is added on the right and at the bottom: the image's reflection, or its last
    pixels again where it is too small for that.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The first (H, W) pixels of images: undoes `padded` after `completion`."""
    return x[..., : size[0], : size[1]]


def quantised(z: Tensor) -> Tensor:
    """The nearest integers, int32; of two equally near ones the even one."""
    return z.round().int()


def noisy(z: Tensor, rng: torch.Generator) -> Tensor:
    """What stands in for rounding in training: `z` plus noise, uniform in [-1/2, 1/2).

    Args:
        z: of any shape.
        rng: on the device of `z`.
    """
    return z + (torch.rand(z.shape, generator=rng, device=z.device) - 0.5)

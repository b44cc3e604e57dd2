"""BrainCL's memory module (arXiv:2504.14727): networks that learn to compress a task's images.

A separation network, a completion network and an entropy model, trained together on one task; see
`methods.parts.long_term_memory` for what stays of them.

Not stated in the paper: networks take pixels of [0, 1] as (x - 0.5) / 0.25, and distances concern
the true pixels alone, not the padding. A rate is in bits a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from methods.base import Batch, Losses
from methods.parts.compression import completion, cropped, noisy, padded, quantised, separation
from methods.parts.entropy_model import PiecewiseLinearCDF

Distortion = Callable[[Tensor, Tensor], Tensor]
"""From recalled and true images (B, C, H, W), both on the scale of [0, 1], to a scalar."""

CHUNK: Final = 128
"""Images a pass when cues are made or recalled; fixed, because it can change the last bits."""

LARGEST: Final = 2**15 - 1
"""Of a cue's elements, in size: what lies between fits into a table of 2**16 symbols."""

CENTRE: Final = 0.5
SPREAD: Final = 0.25


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the networks: see `separation`; `support` see `PiecewiseLinearCDF`."""

    channels: int
    cue_channels: int
    stages: int
    support: int

    def completion(self, image_channels: int) -> nn.Sequential:
        """A new completion network."""
        return completion(self.cue_channels, self.channels, image_channels, self.stages)


@dataclass(frozen=True, slots=True)
class Learning:
    """Adam's learning rates, of both networks and of the entropy model, and the rate's weight."""

    lr: float
    entropy_lr: float
    rate_lambda: float


@final
class MemoryModule(nn.Module):
    """Separation, completion and entropy model for images with so many channels."""

    def __init__(self, image_channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.separation = separation(
            image_channels, sizes.channels, sizes.cue_channels, sizes.stages
        )
        self.completion = sizes.completion(image_channels)
        self.entropy = PiecewiseLinearCDF(sizes.cue_channels, sizes.support)
        self.multiple = 2**sizes.stages

    def losses(
        self, x: Tensor, distortion: Distortion, rate_lambda: float, noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Distortion and rate (bits a pixel), scalars whose sum is to be minimised.

        As in the paper, the separation network learns from distortion + rate_lambda * rate, the
        completion network from the distortion, the entropy model from the rate itself: so the
        rate's gradient is weighted where it leaves the entropy model.

        Args:
            x: uint8 (B, C, H, W).
            distortion: of what is recalled from noisy cues.
            rate_lambda: weight of the rate for the separation network.
            noise: on the device of the images.
        """
        true = x / 255
        cue = noisy(self._cue(true), noise)
        recalled = cropped(self.completion(cue), (x.shape[2], x.shape[3]))
        weighted = cue.detach() + rate_lambda * (cue - cue.detach())
        rate = self.entropy.bits(weighted).mean() / (x.shape[2] * x.shape[3])
        return distortion(recalled * SPREAD + CENTRE, true), rate

    def learn(
        self,
        batches: Iterable[Batch],
        learning: Learning,
        distortion: Distortion,
        rng: torch.Generator,
    ) -> Iterator[Losses]:
        """Train on batches of raw images, yielding "distortion" and the weighted "rate" of each.

        Args:
            batches: of at least one epoch.
            learning: rates and weight.
            distortion: what recalled images are trained for.
            rng: of the CPU; every step draws one number from it, the seed of the noise, which is
                then drawn on the device.
        """
        networks = [*self.separation.parameters(), *self.completion.parameters()]
        optimizer = torch.optim.Adam(
            [
                {"params": networks, "lr": learning.lr},
                {"params": [*self.entropy.parameters()], "lr": learning.entropy_lr},
            ]
        )
        noise = torch.Generator(networks[0].device)
        for batch in batches:
            noise.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            lost, rate = self.losses(batch.x, distortion, learning.rate_lambda, noise)
            optimizer.zero_grad(set_to_none=True)
            (lost + rate).backward()
            optimizer.step()
            yield {"distortion": lost.detach(), "rate": learning.rate_lambda * rate.detach()}

    @torch.no_grad()
    def cues(self, x: Tensor) -> Tensor:
        """Integer cues of raw images (N, C, H, W), int32 (N, cue_channels, h, w) on the CPU.

        Raises:
            OverflowError: if an element is no number or beyond `LARGEST`.
        """
        cues: list[Tensor] = []
        for part in x.split(CHUNK):
            z = self._cue(part / 255)
            if not bool((z.abs() <= LARGEST).all()):
                raise OverflowError("cues became too large: their networks diverged")
            cues.append(quantised(z).cpu())
        return torch.cat(cues)

    def _cue(self, true: Tensor) -> Tensor:
        """Cues before rounding of images on the scale of [0, 1]."""
        return self.separation(padded((true - CENTRE) / SPREAD, self.multiple))

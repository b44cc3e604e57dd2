"""The networks of DualNet (Pham et al., 2021, arXiv:2110.00175), and how the slow one is averaged.

The slow network gives a map behind each of its stages; the fast one, a block a stage, multiplies
its own maps by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods.parts.extra_parameters import ExtraParameters
from methods.parts.feature_maps import Shape
from methods.parts.flat_gradients import pieces

HIDDEN = 256  # units inside the projector, released code


@final
class FastNetwork(ExtraParameters):
    """One block a stage of the slow network: convolution, batch normalisation, ReLU, max-pooling.

    Args:
        image_shape: (C, H, W).
        shapes: of the slow network's maps, which each block's pooling matches.

    Raises:
        ValueError: if no max-pooling does.
    """

    def __init__(self, image_shape: Shape, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for before, after in zip([image_shape, *shapes], shapes, strict=False):
            convolution = nn.Conv2d(before[0], after[0], 3, padding=1)
            pool = max_pooling(before[1:], after[1:])
            block = [convolution, nn.BatchNorm2d(after[0]), nn.ReLU(inplace=True), pool]
            self.blocks.append(nn.Sequential(*block))

    def forward(self, x: Tensor, slow_maps: Sequence[Tensor]) -> Tensor:
        """Normalised images (B, C, H, W), through each block times its slow map: the last map."""
        for block, slow in zip(self.blocks, slow_maps, strict=True):
            x = block(x) * slow
        return x


def max_pooling(before: tuple[int, int], after: tuple[int, int]) -> nn.Module:
    """Max-pooling without overlap from maps of one size (H, W) to those of another.

    Whole windows alone count, or an incomplete last one as well, whichever leads there.

    Raises:
        ValueError: if neither does, whatever the size of the windows.
    """
    for side in range(1, max(before) + 1):
        for partial in (True, False):
            sizes = tuple((length + partial * (side - 1)) // side for length in before)
            if sizes == after:
                return nn.MaxPool2d(side, ceil_mode=partial) if side > 1 else nn.Identity()
    raise ValueError(f"no max-pooling turns maps of {before} into maps of {after}")


@final
class Projector(ExtraParameters):
    """Features (B, `dim`) to as wide projections, for the slow network's Barlow Twins loss."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, dim, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


@final
class LookAhead:
    """Go a part of the way that some steps have led (Zhang et al., 2019, arXiv:1907.08610).

    Parameters and batch statistics go it alike; counters of batches stay where the steps led them.
    """

    def __init__(self, *modules: nn.Module) -> None:
        tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
        self._tensors: list[Tensor] = [t for t in tensors if t.is_floating_point()]

    @torch.no_grad()
    def here(self) -> Tensor:
        """Where the modules are now, as one vector (P,)."""
        return torch.cat([tensor.flatten() for tensor in self._tensors])

    def part_of_the_way(self, start: Tensor, beta: float) -> None:
        """Move to start + beta * (now - start); `start` (P,) is what `here` gave."""
        get_ema_multi_avg_fn(beta)(self._tensors, pieces(self._tensors, start), 0)


def summed_divergence(logits: Tensor, stored: Tensor, known: Tensor, temperature: float) -> Tensor:
    """KL divergence of two softmaxes at a temperature, summed over images, averaged over classes.

    Args:
        logits: of the network now, (N, C).
        stored: what is to be kept, (N, C), without gradient.
        known: bool (N,); other images do not count.
        temperature: T; the result is not multiplied by its square.
    """
    now, then = (F.log_softmax(z / temperature, dim=1) for z in (logits, stored))
    each = F.kl_div(now, then, reduction="none", log_target=True).sum(1)
    return (each * known).sum() / logits.shape[1]

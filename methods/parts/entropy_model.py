"""The entropy model of BrainCL's cues (arXiv:2504.14727): a distribution function for each channel.

The paper approximates the distribution function F of a cue's elements by a piecewise-linear one and
takes the probability of an element q from F(q + 1/2) - F(q - 1/2). The rest is ours. Knots are the
boundaries between integer symbols, the same at every place of a channel; the masses between them
are a softmax of learned logits. A logistic function, mixed in with a small weight, reaches beyond
the outermost knots: every integer has a probability, and the gradient draws outliers inwards.
"""

from __future__ import annotations

import copy
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAIL_WEIGHT: Final = 1e-4  # of the logistic function; ours
LAPLACE_SCALE: Final = 3.0  # symbols over which the first masses fall by a factor of e; ours
LEAST: Final = 1e-30  # keeps the logarithm finite some 500 symbols and more away; ours


class PiecewiseLinearCDF(nn.Module):
    """Distribution functions of `channels` channels.

    Args:
        channels: of a cue.
        support: L; symbols from -L to L have a mass of their own, L at least 1.
    """

    def __init__(self, channels: int, support: int = 32) -> None:
        super().__init__()
        self.support = support
        distance = torch.arange(-support, support + 1).abs()
        self.logits = nn.Parameter((-distance / LAPLACE_SCALE).repeat(channels, 1))

    def forward(self, v: Tensor) -> Tensor:
        """Probabilities F(v + 1/2) - F(v - 1/2), in (0, 1], of cues (B, C, h, w); same shape.

        Between two integers this is the linear blend of their probabilities, but for the tail: so
        it is computed, because a difference of two values near 1 would lose the small ones.
        """
        masses = F.pad(self.logits.softmax(1), (1, 1))  # of symbols -L - 1 to L + 1
        place = (v + self.support + 1).clamp(0, masses.shape[1] - 1)
        below = place.detach().floor().clamp(max=masses.shape[1] - 2)
        linear = torch.lerp(_at(masses, below), _at(masses, below + 1), place - below)
        p = (1 - TAIL_WEIGHT) * linear + TAIL_WEIGHT * self._tail(v)
        return p.clamp_min(LEAST)

    def _tail(self, v: Tensor) -> Tensor:
        """What the logistic function adds; by its symmetry taken where its values are small."""
        distance, scale = v.abs(), self.support / 4
        return ((0.5 - distance) / scale).sigmoid() - ((-0.5 - distance) / scale).sigmoid()

    def cumulative(self, v: Tensor) -> Tensor:
        """F itself, in [0, 1], of values (B, C, h, w); same shape."""
        masses = self.logits.softmax(1)
        sums = F.pad(masses.cumsum(1), (1, 0))
        place = (v + self.support + 0.5).clamp(0, masses.shape[1])
        knot = place.detach().floor().clamp(max=masses.shape[1] - 1)
        linear = _at(sums, knot) + (place - knot) * _at(masses, knot)
        return (1 - TAIL_WEIGHT) * linear + TAIL_WEIGHT * (4 * v / self.support).sigmoid()

    def bits(self, v: Tensor) -> Tensor:
        """Expected bits (B,) of each cue of a batch (B, C, h, w)."""
        return -self(v).log2().flatten(1).sum(1)

    @torch.no_grad()
    def symbol_probabilities(self, low: Tensor, high: Tensor) -> list[npt.NDArray[np.float64]]:
        """What a coder needs: for each channel the probabilities of its symbols low to high.

        They come from the CPU in double precision, whatever the device, and are not normalised:
        what lies outside low to high is left out.

        Args:
            low: least symbol of each channel, int (C,).
            high: greatest one, int (C,), not below `low`.
        """
        exact = copy.deepcopy(self).double().cpu()
        first, last = int(low.min()), int(high.max())
        symbols = torch.arange(first, last + 1, dtype=torch.float64)
        table = exact(symbols.expand(1, len(low), 1, -1))[0, :, 0].numpy()
        ranges = zip(table, (low - first).tolist(), (high - first).tolist(), strict=True)
        return [row[start : stop + 1].copy() for row, start, stop in ranges]


def _at(table: Tensor, places: Tensor) -> Tensor:
    """Entries of each channel's row of a table (C, n) at whole numbers (B, C, h, w)."""
    places = places.nan_to_num()  # an index beyond the table would end the process on a GPU
    by_channel = places.long().transpose(0, 1)
    found = table.gather(1, by_channel.flatten(1))
    return found.view(by_channel.shape).transpose(0, 1)

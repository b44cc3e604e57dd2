"""How much the gradients of images resemble those of images in memory, and who may stay there.

The greedy selection of GSS (Aljundi et al., 2019, arXiv:1903.08671). A score is the highest cosine
with a reference's gradient, plus 1, so between 0 and 2; the lower it is, the more is new.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.parts.sample_gradients import sample_gradients, stacked

FIRST_SCORE = 0.1
"""Of images that came when there was nothing yet to compare them with (Mammoth)."""

MIN_SCORE = 1e-6
"""Keeps the probabilities of slots defined where all gradients oppose each other."""


class Comparison(Protocol):
    """Gradients of reference images, fixed, with which others are compared.

    Images are normalised (B, C, H, W), labels (B,); the network must be in eval mode.
    """

    def batch(self, x: Tensor, y: Tensor) -> Tensor:
        """Score of the gradient of the mean loss of all images, a scalar."""
        ...

    def samples(self, x: Tensor, y: Tensor) -> Tensor:
        """Score (B,) of the gradient of each image."""
        ...


@final
class FullComparison:
    """By the gradients of all parameters.

    Args:
        net: from images to logits.
        x: the references, normalised (M, C, H, W); M times the bytes of the parameters are held.
        y: their labels (M,).
        chunk: images whose gradients are computed side by side.
    """

    def __init__(self, net: nn.Module, x: Tensor, y: Tensor, *, chunk: int) -> None:
        self._net = net
        self._chunk = chunk
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        count = sum(parameter.numel() for parameter in self._parameters)
        self._references = x.new_empty((len(x), count))
        # Row by row into one matrix: to put chunks together would hold everything twice.
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            self._references[rows] = self._gradients(x[rows], y[rows])
        self._lengths = self._references.norm(dim=1)

    def batch(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(self._net(x), y)
        gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        return self._scores(flat[None])[0]

    def samples(self, x: Tensor, y: Tensor) -> Tensor:
        pieces = zip(x.split(self._chunk), y.split(self._chunk), strict=True)
        return torch.cat([self._scores(self._gradients(*piece)) for piece in pieces])

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of each of at most `chunk` images, (N, P)."""
        gradients = sample_gradients(self._net, x, y, F.cross_entropy, chunk=self._chunk)
        return stacked(gradients)

    def _scores(self, gradients: Tensor) -> Tensor:
        """(N, P) to (N,). Lengths divide the products, which spares a pass over the gradients."""
        lengths = gradients.norm(dim=1)[:, None] * self._lengths
        return (gradients @ self._references.T / lengths.clamp(min=1e-12)).amax(1) + 1


@final
class HeadComparison:
    """By the gradients of the linear head alone, which need no backward pass.

    The cross-entropy of an image has the gradient (softmax - one-hot) x [features, 1] there, an
    outer product: cosines are those of the first factors times those of the second.

    Args:
        backbone: from images to features.
        head: linear, with a bias.
        x: the references, normalised (M, C, H, W).
        y: their labels (M,).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, x: Tensor, y: Tensor) -> None:
        self._backbone = backbone
        self._head = head
        self._residuals, self._features = (F.normalize(f, dim=1) for f in self._factors(x, y))

    def batch(self, x: Tensor, y: Tensor) -> Tensor:
        residuals, features = self._factors(x, y)
        mean = residuals.T @ features  # up to a factor, which does not change its direction
        direction = mean / mean.norm().clamp(min=1e-12)
        return ((self._residuals @ direction) * self._features).sum(1).max() + 1

    def samples(self, x: Tensor, y: Tensor) -> Tensor:
        residuals, features = (F.normalize(f, dim=1) for f in self._factors(x, y))
        cosines = (residuals @ self._residuals.T) * (features @ self._features.T)
        return cosines.amax(1) + 1

    @torch.no_grad()
    def _factors(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, classes) and (N, D + 1): the gradient of an image is their outer product."""
        features = self._backbone(x)
        probabilities = self._head(features).softmax(1)
        residuals = probabilities - F.one_hot(y, probabilities.shape[1])
        return residuals, F.pad(features, (0, 1), value=1.0)


@final
class GreedySelection:
    """Slots of a buffer whose images should differ in their gradients; a `SlotPolicy` with scores.

    A full buffer takes images only from a batch that scores below 1. An image of score c draws a
    slot with probability c_i / sum c_j, and takes it with probability c_i / (c_i + c). Call `judge`
    before every batch. The scores stay on the host, where the slots are drawn.
    """

    kind = "exemplars"

    def __init__(self) -> None:
        self.scores: list[float] = []
        self._batch = FIRST_SCORE
        self._samples: Sequence[float] = ()

    @property
    def nbytes(self) -> int:
        return self._tensor().nbytes

    def judge(self, batch: float, samples: Sequence[float]) -> None:
        """Scores of the batch that comes next.

        Args:
            batch: of all together.
            samples: of each image that finds no empty slot; unused if `batch` is not below 1.
        """
        self._batch, self._samples = batch, samples

    def __call__(self, seen: int, incoming: int, capacity: int, rng: torch.Generator) -> Tensor:
        appended = min(max(capacity - seen, 0), incoming)
        slots = [*range(seen, seen + appended)]
        self.scores += [max(self._batch, MIN_SCORE)] * appended
        if self._batch < 1:
            slots += self._replacements(incoming - appended, rng)
        slots += [-1] * (incoming - len(slots))
        return torch.tensor(slots, dtype=torch.int64)

    def _replacements(self, count: int, rng: torch.Generator) -> list[int]:
        """A slot or -1 for each of `count` images, one after the other."""
        slots: list[int] = []
        draws: list[list[float]] = torch.rand((count, 2), generator=rng).tolist()
        sums = [*accumulate(self.scores)]
        for score, (which, whether) in zip(self._samples, draws, strict=True):
            own = max(score, MIN_SCORE)
            slot = min(bisect(sums, which * sums[-1]), len(sums) - 1)
            held = self.scores[slot]
            if whether * (held + own) >= held:
                slots.append(-1)
                continue
            slots.append(slot)
            self.scores[slot] = own
            sums = [*accumulate(self.scores)]
        return slots

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self._tensor()}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.scores = state_dict["scores"].tolist()

    def _tensor(self) -> Tensor:
        return torch.tensor(self.scores, dtype=torch.float64)

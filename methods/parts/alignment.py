"""Alignment of projections with those of an earlier network, through a trained head.

The head predicts the target from the current projection (CaSSLe: Fini et al., 2022,
arXiv:2112.04215; CLA: Cignoni et al., CoLLAs 2025, eq. 2 and 3), so that the network itself stays
free to move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import Context, Objective
from methods.parts.bytes_held import module_nbytes
from methods.parts.teachers import Teacher

Criterion = Literal["cosine", "mse", "ssl"]

HEAD_WIDTH: Final = 512  # CLA's released code, whatever the projection's size


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine similarity of the rows of two (B, D), a scalar."""
    return -F.cosine_similarity(predicted, target, dim=1).mean()


_LOSSES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cosine": negative_cosine,
    "mse": F.mse_loss,
}


@final
class Alignment(nn.Module):
    """The alignment head and its loss; `criterion` ssl is the objective's own distillation.

    Args:
        ctx: gives seeded weights and the device.
        objective: whose projections are aligned.
        criterion: what the head's output and the target are compared by.
    """

    kind = "extra parameters"

    def __init__(self, ctx: Context, objective: Objective, criterion: Criterion = "cosine") -> None:
        super().__init__()
        dim = objective.projection_dim
        self.head = ctx.random.weights(lambda: _head(dim), "alignment").to(ctx.device)
        self._compare = _LOSSES.get(criterion)
        self._distil = objective.alignment

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

    def forward(self, projections: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The mean loss over all views, a scalar.

        Args:
            projections: (B, D) of each view; gradients flow into them and into the head.
            targets: (B, D) of each view; no gradient flows into them.
        """
        predicted = self.head(torch.cat(list(projections)))
        fixed = torch.cat(list(targets)).detach()
        if self._compare is not None:
            return self._compare(predicted, fixed)
        views = len(projections)
        return self._distil(predicted.chunk(views), fixed.chunk(views))

    def towards(
        self, teacher: Teacher, views: Sequence[Tensor], projections: Sequence[Tensor], count: int
    ) -> Tensor:
        """The loss of the first `count` images of each view, with the teacher's projections.

        Args:
            teacher: sees the same views (B, C, H, W) as the network did.
            views: of the images.
            projections: what the network made of them, (B, D) each.
            count: replayed images come first, so this many are the replayed ones; B for all.
        """
        targets = teacher(tuple(view[:count] for view in views))
        return self([z[:count] for z in projections], targets)


def require_alignable(objective: type[Objective]) -> None:
    """Refuse an objective without projections to align.

    Raises:
        ValueError: naming the objective.
    """
    if not objective.alignable:
        raise ValueError(
            f"it aligns projections of two views, which objective {objective.__name__} has not; "
            "use another objective, or a method without alignment such as replay"
        )


def _head(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, HEAD_WIDTH, bias=False),
        nn.BatchNorm1d(HEAD_WIDTH),
        nn.ReLU(inplace=True),
        nn.Linear(HEAD_WIDTH, dim),
    )

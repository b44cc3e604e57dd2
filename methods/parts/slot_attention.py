"""Attention of many queries to the slots of a memory that is never held for a whole batch.

At 64 pixels a side the attention of 128 images to 1,677 slots takes 3.5 GB, once for the network
and once for its teacher, and its gradients as much again. Here a few images at a time go through
all that needs it, and the backward pass computes it anew.
"""

from __future__ import annotations

from typing import Any, Final, Literal, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Over = Literal["slots", "positions"]
"""What the attention sums to 1 over: the slots for every query, or the queries for every slot."""

SCORES: Final = 2**24
"""Scores that are held at once: 64 MB, of which the backward pass takes about five times as much;
matrices of this size keep a GPU busy."""

ZERO: Final = 1e-12
"""Vectors of a norm up to this have no direction; as in `torch.nn.functional.normalize`."""

Target = tuple[Tensor, Tensor]
"""Another network's queries (B, P, d) and keys (L, d) at the same memory."""


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    over: Over = "slots",
    target: Target | None = None,
    scores: int = SCORES,
) -> tuple[Tensor, Tensor | None]:
    """Read a memory by the cosines of queries and keys, through a softmax at temperature 1.

    A query of zeros has no direction: it reads the slots with equal weights and has no gradient.

    Args:
        queries: (B, P, d), P of each image.
        keys: (L, d).
        values: (L, d).
        over: see `Over`.
        target: fixed; whose attention is compared with this one, slot j with slot j. It may have
            fewer slots: the first ones of this memory are compared with them.
        scores: at most so many are held at once, but those of one image in any case.

    Returns:
        The sums of values weighted by attention (B, P, d), and 1 minus the cosine between the
        attention of each image to the slots that both have, taken as one vector, and the target's
        (B,); None without a target.
    """
    dim = -1 if over == "slots" else 1
    images = max(1, scores // max(1, queries.shape[1] * len(keys)))
    unit_keys = F.normalize(keys, dim=1, eps=ZERO)
    if target is None:
        return _Attend.apply(queries, unit_keys, values, None, unit_keys, dim, images)[0], None
    target_keys = F.normalize(target[1], dim=1, eps=ZERO)
    return _Attend.apply(queries, unit_keys, values, target[0], target_keys, dim, images)


def attention(queries: Tensor, keys: Tensor, *, over: Over = "slots") -> Tensor:
    """The weights (B, P, L) by which `attend` sums; all of them at once."""
    unit_keys = F.normalize(keys, dim=1, eps=ZERO)
    return _weights(_unit(queries)[0], unit_keys, -1 if over == "slots" else 1)


def _unit(queries: Tensor) -> tuple[Tensor, Tensor]:
    """Queries of norm 1, and the inverse (..., 1) of their norm; zeros for those without one."""
    norm = torch.linalg.vector_norm(queries, dim=-1, keepdim=True)
    inverse = torch.where(norm > ZERO, norm.reciprocal(), 0)
    return queries * inverse, inverse


def _weights(unit: Tensor, unit_keys: Tensor, dim: int) -> Tensor:
    return torch.softmax(unit @ unit_keys.T, dim)


def _difference(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Of the two as unit vectors, image by image, and the norm (B, 1, 1) of the first.

    Half its square is 1 minus their cosine, without the cancellation of that formula: attention
    is nearly uniform, and cosines are 0.99 and more.
    """
    norm = _norm(weights)
    return weights / norm - target / _norm(target), norm


def _norm(x: Tensor) -> Tensor:
    """(B, 1, 1) of (B, P, L); row by row first, as one sum of millions of squares is too coarse."""
    rows = torch.linalg.vector_norm(x, dim=2, keepdim=True)
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _compared(
    queries: Tensor, keys: Tensor, target_queries: Tensor | None, target_keys: Tensor, dim: int
) -> list[Tensor]:
    """The weights (B, P, L); with a target also what `_difference` says of the slots it has."""
    weights = _weights(_unit(queries)[0], keys, dim)
    if target_queries is None:
        return [weights]
    target = _weights(_unit(target_queries)[0], target_keys, dim)
    return [weights, *_difference(weights[..., : len(target_keys)], target)]


@final
class _Attend(torch.autograd.Function):
    """`attend` for keys of norm 1; if the attention of the batch fits at once, it is kept."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,  # noqa: ANN401
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        target_queries: Tensor | None,
        target_keys: Tensor,
        dim: int,
        images: int,
    ) -> tuple[Tensor, Tensor]:
        read, distance = values.new_empty(queries.shape), values.new_zeros(len(queries))
        found: list[Tensor] = []
        for start in range(0, len(queries), images):
            here = slice(start, start + images)
            others = None if target_queries is None else target_queries[here]
            found = _compared(queries[here], keys, others, target_keys, dim)
            torch.matmul(found[0], values, out=read[here])
            if len(found) > 1:
                distance[here] = _norm(found[1]).flatten().square() / 2
        ctx.dim, ctx.images = dim, images
        kept = found if len(queries) <= images else []
        ctx.save_for_backward(queries, keys, values, target_queries, target_keys, distance, *kept)
        return read, distance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's type
        ctx: Any,  # noqa: ANN401
        to_read: Tensor,
        to_distance: Tensor,
    ) -> tuple[Tensor | None, ...]:
        queries, keys, values, target_queries, target_keys, distance, *kept = ctx.saved_tensors
        to_queries = torch.empty_like(queries, memory_format=torch.contiguous_format)
        to_keys, to_values = torch.zeros_like(keys), torch.zeros_like(values)
        for start in range(0, len(queries), ctx.images):
            here = slice(start, start + ctx.images)
            others = None if target_queries is None else target_queries[here]
            found = kept or _compared(queries[here], keys, others, target_keys, ctx.dim)
            weights, to_said = found[0], to_read[here].contiguous()
            to_values += weights.flatten(0, 1).T @ to_said.flatten(0, 1)
            to_weights = to_said @ values.T
            if len(found) > 1:
                # d/dw of |w/|w| - t|^2 / 2, whose part along w is the distance itself.
                scale = to_distance[here, None, None] / found[2]
                common = to_weights[..., : len(target_keys)]
                common.addcmul_(found[1], scale)
                along = -scale * distance[here, None, None] / found[2]
                common.addcmul_(weights[..., : len(target_keys)], along)
            to_scores = _softmax_backward(to_weights, weights, ctx.dim)
            unit, inverse = _unit(queries[here])
            to_keys += to_scores.flatten(0, 1).T @ unit.flatten(0, 1)
            to_unit = to_scores @ keys
            radial = (to_unit * unit).sum(-1, keepdim=True)
            to_queries[here] = (to_unit - radial * unit) * inverse
        return to_queries, to_keys, to_values, None, None, None, None


def _softmax_backward(gradient: Tensor, weights: Tensor, dim: int) -> Tensor:
    return torch._softmax_backward_data(gradient, weights, dim, weights.dtype)  # pyright: ignore[reportPrivateImportUsage]

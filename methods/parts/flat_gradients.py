"""Gradients of a network as one vector, on the device, for methods that do algebra with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def flat_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """A copy of all gradients, (P,); zeros for parameters that have none."""
    return torch.cat([_gradient(parameter).flatten() for parameter in parameters])


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def set_gradient(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Put the pieces of `flat` (P,) in the place of the gradients."""
    for parameter, piece in zip(parameters, pieces(parameters, flat), strict=True):
        parameter.grad = piece.clone()


def pieces(parameters: Sequence[Tensor], flat: Tensor) -> list[Tensor]:
    """`flat` (P,) in views of the parameters' shapes."""
    parts = flat.split([parameter.numel() for parameter in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


def flat_parameters(parameters: Iterable[nn.Parameter]) -> Tensor:
    """A copy of all parameters without gradient, (P,)."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])

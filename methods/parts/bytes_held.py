"""Bytes that a module holds, as its checkpoint stores them."""

from __future__ import annotations

from torch import Tensor, nn


def module_nbytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(v.nbytes for v in module.state_dict().values() if isinstance(v, Tensor))

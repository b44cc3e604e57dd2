"""What memories of a given size take, from shapes alone; the meta device will do."""

from __future__ import annotations

from math import prod
from typing import Final

from torch import nn

MIB: Final = 2**20
"""Bytes of a mebibyte, the unit of BrainCL's tables (arXiv:2504.14727), which call it MB."""


def images_nbytes(count: int, image_shape: tuple[int, int, int]) -> int:
    """Bytes of `count` raw images (C, H, W), one a channel of a pixel."""
    return count * prod(image_shape)


def parameters_nbytes(module: nn.Module) -> int:
    """Bytes of a module's parameters, without buffers such as running statistics."""
    return sum(parameter.nbytes for parameter in module.parameters())

"""Modules beside the network that finetuning needs."""

from __future__ import annotations

from torch import nn

from methods.parts.bytes_held import module_nbytes


class ExtraParameters(nn.Module):
    """A module that is a part of its own, and whose bytes count in `Method.memory`."""

    kind = "extra parameters"

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

"""How much every parameter matters to what was learned: one number each, as flat vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor


@final
class ParameterVectors:
    """Named vectors (P,), one number for each trained parameter; none before the first `put`."""

    kind = "importance"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._vectors: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._vectors)

    def __getitem__(self, name: str) -> Tensor:
        return self._vectors[name]

    def put(self, **vectors: Tensor) -> None:
        """Hold these, in the place of those of the same names."""
        self._vectors.update(vectors)

    @property
    def nbytes(self) -> int:
        return sum(vector.nbytes for vector in self._vectors.values())

    def state_dict(self) -> dict[str, Any]:
        return dict(self._vectors)

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        # Copies: what is loaded may be changed in place, and is not ours.
        self._vectors = {
            name: vector.to(self._device, copy=True) for name, vector in state_dict.items()
        }


def squared_gradients(gradients: Mapping[str, Tensor]) -> Tensor:
    """Sum over images of the squares of their gradients, (P,).

    Args:
        gradients: by name, each (N, *shape), as `sample_gradients` gives them; overwritten.
    """
    return torch.cat([gradient.square_().sum(0).flatten() for gradient in gradients.values()])

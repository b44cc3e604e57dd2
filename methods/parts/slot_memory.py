"""Memories of key-value slots, of which some are frozen (EDD, 2025, arXiv:2511.09871).

Frozen slots are buffers, not parameters: no optimizer can move them, whatever its state. Slots
stand in one order, the frozen ones first, so that slot j of a copy is slot j of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.parts.bytes_held import module_nbytes

Orthogonality = Literal["sq_mean", "abs_mean"]
Slots = tuple[Tensor, Tensor]
"""Keys and values, both (n, d)."""


def new_slots(count: int, dim: int) -> Slots:
    """Slots of Xavier's uniform weights, whose range depends on `count`; draws from torch's RNG."""
    if not count:
        return torch.empty(0, dim), torch.empty(0, dim)
    keys = nn.init.xavier_uniform_(torch.empty(count, dim))
    return keys, nn.init.xavier_uniform_(torch.empty(count, dim))


@final
class SlotMemory(nn.Module):
    """Keys and values of L slots.

    Attributes:
        frozen_keys, frozen_values: buffers (F, d).
        keys, values: parameters (U, d) of the slots that learn.
        reference_keys, reference_values: buffers (U, d), from which the movement of those counts.
    """

    frozen_keys: Tensor
    frozen_values: Tensor
    reference_keys: Tensor
    reference_values: Tensor

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        nothing = torch.empty(0, dim)
        self._put((nothing, nothing), new_slots(slots, dim))
        self.refer()

    @property
    def frozen(self) -> int:
        """Number of frozen slots, the first ones."""
        return len(self.frozen_keys)

    def __len__(self) -> int:
        return self.frozen + len(self.keys)

    def all_keys(self) -> Tensor:
        """(L, d), the frozen ones first."""
        return torch.cat([self.frozen_keys, self.keys])

    def all_values(self) -> Tensor:
        """(L, d), the frozen ones first."""
        return torch.cat([self.frozen_values, self.values])

    @torch.no_grad()
    def importance(self) -> Tensor:
        """How far key and value of each slot that learns have moved, the sum of both norms (U,)."""
        moved = (self.keys - self.reference_keys, self.values - self.reference_values)
        return sum((part.norm(dim=1) for part in moved), start=torch.zeros(()))

    @torch.no_grad()
    def freeze(self, count: int) -> None:
        """Freeze the `count` most important of the slots that learn; what is read stays the same.

        On ties those that stand first are frozen.
        """
        order = self.importance().sort(descending=True, stable=True).indices
        chosen, rest = (part.sort().values for part in order.tensor_split([count]))
        frozen = (
            torch.cat([self.frozen_keys, self.keys[chosen]]),
            torch.cat([self.frozen_values, self.values[chosen]]),
        )
        self._refer_to(self.reference_keys[rest], self.reference_values[rest])
        self._put(frozen, (self.keys[rest], self.values[rest]))

    @torch.no_grad()
    def append(self, slots: Slots) -> None:
        """Add new slots behind all others; their movement counts from what they are now."""
        keys, values = (part.to(self.keys.device) for part in slots)
        self._refer_to(
            torch.cat([self.reference_keys, keys]), torch.cat([self.reference_values, values])
        )
        learning = torch.cat([self.keys, keys]), torch.cat([self.values, values])
        self._put((self.frozen_keys, self.frozen_values), learning)

    def refer(self) -> None:
        """Let movement count from what the slots are now."""
        self._refer_to(self.keys.detach().clone(), self.values.detach().clone())

    def resize(self, frozen: int, learning: int) -> None:
        """Make room for so many slots of each sort, all zeros, before a state is loaded."""
        keys = self.keys.detach()
        old, new = (keys.new_zeros(count, keys.shape[1]) for count in (frozen, learning))
        self._put((old, old.clone()), (new, new.clone()))
        self.refer()

    def orthogonality(self, kind: Orthogonality = "sq_mean") -> Tensor:
        """How far frozen and learning slots are from orthogonal; a scalar, 0 without either.

        The mean over all pairs of the squared cosine ("sq_mean") or of its absolute value, of
        keys and of values, added.
        """
        pairs = ((self.frozen_keys, self.keys), (self.frozen_values, self.values))
        if not self.frozen or not len(self.keys):
            return self.keys.new_zeros(())
        cosines = [F.normalize(old, dim=1) @ F.normalize(new, dim=1).T for old, new in pairs]
        keys, values = (c.square() if kind == "sq_mean" else c.abs() for c in cosines)
        return keys.mean() + values.mean()

    def _put(self, frozen: Slots, learning: Slots) -> None:
        self.register_buffer("frozen_keys", frozen[0])
        self.register_buffer("frozen_values", frozen[1])
        self.keys, self.values = nn.Parameter(learning[0]), nn.Parameter(learning[1])

    def _refer_to(self, keys: Tensor, values: Tensor) -> None:
        self.register_buffer("reference_keys", keys)
        self.register_buffer("reference_values", values)


@final
class SlotMemories(nn.ModuleList):
    """The memories of a network, one for each dimension in `dims`."""

    kind = "extra parameters"

    def __init__(self, dims: tuple[int, ...], slots: int) -> None:
        super().__init__(SlotMemory(dim, slots) for dim in dims)

    def all(self) -> list[SlotMemory]:
        """The memories, from the first stage on."""
        return [cast("SlotMemory", memory) for memory in self]

    def refer(self) -> None:
        """Let movement count from what all slots are now."""
        for memory in self.all():
            memory.refer()

    @property
    def nbytes(self) -> int:
        return module_nbytes(self)

    def resize(self, state: Mapping[str, Any]) -> None:
        """Give every memory the shape that it has in a saved `state`."""
        for number, memory in enumerate(self.all()):
            memory.resize(len(state[f"{number}.frozen_keys"]), len(state[f"{number}.keys"]))

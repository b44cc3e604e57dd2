"""Rows of a memory dealt to the batches of a stream, so that an epoch sees each of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, final

import torch
from torch import Tensor


@final
class Deck:
    """Rows in random order, none a second time before all the others; shuffled anew at its end."""

    def __init__(self) -> None:
        self.share = 0
        self._left: list[int] = []

    def begin(self, rows: int, batches: int, most: int | None = None) -> None:
        """Deal `rows` rows over every `batches` batches: `share` of them to each, or `most`."""
        share = ceil(rows / batches)
        self.share = share if most is None else min(share, most)
        self._left = []

    def draw(self, rows: int, rng: torch.Generator) -> Tensor:
        """The next `share` of `rows` rows; int64 on the CPU."""
        while len(self._left) < self.share:
            self._left += torch.randperm(rows, generator=rng).tolist()
        drawn, self._left = self._left[: self.share], self._left[self.share :]
        return torch.tensor(drawn, dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"share": self.share, "left": [*self._left]}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.share, self._left = state_dict["share"], [*state_dict["left"]]

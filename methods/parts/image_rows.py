"""Images that stay on the device, in rows that the host hands out and takes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import torch
from torch import Tensor

from methods.parts.transfers import sent


@final
class ImageRows:
    """Room for `rows` images of shape (C, H, W); a row may have several owners.

    Rows are reserved one by one for the images of a batch, and the batch is written at once: a row
    that was given back meanwhile, and out again, holds the later image.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.device = device
        self._images: Tensor | None = None
        self._owners = [0] * rows
        self.clear()

    @property
    def free(self) -> int:
        """Rows without an owner."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that have an owner."""
        if self._images is None:
            return 0
        return (len(self._owners) - self.free) * self._images[0].nbytes

    def reserve(self, position: int) -> int:
        """A free row for the image at `position` in the batch that `write` is given next."""
        row = self._free.pop()
        self._owners[row] = 1
        self._waiting[row] = position
        return row

    def share(self, row: int) -> int:
        """One more owner for a row; the row."""
        self._owners[row] += 1
        return row

    def release(self, rows: Iterable[int]) -> None:
        """One owner less for each of these rows; without any, a row is free."""
        for row in rows:
            self._owners[row] -= 1
            if not self._owners[row]:
                self._free.append(row)

    def write(self, x: Tensor) -> None:
        """Store the images of a batch (B, C, H, W), on any device, for which rows were reserved."""
        if not self._waiting:
            return
        if self._images is None:
            self._images = self._empty(x)
        rows, positions = torch.tensor([[*self._waiting], [*self._waiting.values()]])
        self._images[sent(rows, self.device)] = x[sent(positions, x.device)].to(self.device)
        self._waiting.clear()

    def take(self, rows: Sequence[int]) -> Tensor:
        """A copy of the images in these rows, (len(rows), C, H, W)."""
        if self._images is None:
            raise IndexError("nothing was stored yet")
        return self._images[sent(torch.tensor(rows, dtype=torch.int64), self.device)]

    def clear(self) -> None:
        """Take every row back."""
        self._owners = [0] * len(self._owners)
        self._free = [*range(len(self._owners))][::-1]  # the first row is handed out first
        self._waiting: dict[int, int] = {}

    def refill(self, images: Tensor, owned: Iterable[int]) -> None:
        """Hold just these images (N, C, H, W), from row 0 on; `owned` has a row for each owner."""
        self.clear()
        self._images = self._empty(images)
        self._images[: len(images)] = images.to(self.device)
        for row in owned:
            self._owners[row] += 1
        del self._free[self.free - len(images) :]

    def _empty(self, x: Tensor) -> Tensor:
        return x.new_zeros((len(self._owners), *x.shape[1:]), device=self.device)

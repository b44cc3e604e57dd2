"""When is an image new? When it is farther from what is known than most images of late were.

The threshold of CLIMB (CoLLAs 2026, README): a percentile of the last
distances observed, which follows an encoder whose distances shrink or grow while it learns.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import final

BEFORE_ANY = -1.0  # below every cosine distance: without a distance to compare with, all is new


@final
class NoveltyWindow:
    """The last `size` distances and their `percentile`, a number in (0, 1).

    A distance may be None: an image that had nothing to be compared with. It counts in the window
    as one above all numbers.
    """

    def __init__(self, size: int, percentile: float) -> None:
        self.percentile = percentile
        self._last: deque[float | None] = deque(maxlen=size)
        self._sorted: list[float] = []

    def push(self, distance: float | None, *, times: int = 1) -> None:
        """Observe a distance, `times` over; the oldest leave a full window."""
        for _ in range(times):
            if len(self._last) == self._last.maxlen:
                leaving = self._last.popleft()
                if leaving is not None:
                    del self._sorted[bisect_left(self._sorted, leaving)]
            self._last.append(distance)
            if distance is not None:
                insort(self._sorted, distance)

    def restart(self, distances: Iterable[float | None]) -> None:
        """Forget what was observed, and observe these instead."""
        self._last.clear()
        self._sorted.clear()
        for distance in distances:
            self.push(distance)

    @property
    def threshold(self) -> float:
        """The percentile, interpolated linearly between the two distances beside it.

        -1 for an empty window; not a number where one of the two is None.
        """
        if not self._last:
            return BEFORE_ANY
        place = (len(self._last) - 1) * self.percentile
        below, above = math.floor(place), math.ceil(place)
        if above >= len(self._sorted):
            return math.nan
        if below == above:
            return self._sorted[below]
        return self._sorted[below] * (above - place) + self._sorted[above] * (place - below)

    @property
    def distances(self) -> Sequence[float | None]:
        """What is in the window, the oldest first."""
        return list(self._last)

"""What CLIMB's memory holds: centroids of two memories, their images, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor

from methods.parts.centroid_rules import Rules
from methods.parts.image_rows import ImageRows


@dataclass(slots=True)
class Centroid:
    """A centroid but for its embedding: the rows of its images, and the cycles they came in.

    `touched` is the number of images seen before the one that opened it or matched it last; the
    released code counts up from there instead (`age`).
    """

    rows: list[int]
    arrivals: list[int]
    matches: int = 0
    touched: int = 0


@final
class CentroidStore:
    """The slots of the short-term memory (STM), the list of the long-term one (LTM), the images.

    A centroid's number is the row of its embedding: the L slots of the STM, then the LTM. There
    is one row more than centroids fit, for the one that is promoted before two merge.

    Attributes:
        stm: a centroid or None for each slot.
        ltm: centroids, the first promoted first.
        images: their images.
        embeddings: (L + K + 1, D), None until the first images come and tell D.
        seen: images offered so far.
        cycle: 1 more than the consolidations so far.
    """

    def __init__(self, rules: Rules, rows: int, device: torch.device) -> None:
        self.device = device
        self.stm: list[Centroid | None] = [None] * rules.stm_centroids
        self.ltm: list[Centroid] = []
        self.images = ImageRows(rows, device)
        self.embeddings: Tensor | None = None
        self.seen = 0
        self.cycle = 1
        self._most = rules.stm_centroids + rules.ltm_centroids + 1

    def __len__(self) -> int:
        """Images of all centroids; one held by two counts twice."""
        return sum(len(centroid.rows) for _, centroid in self.centroids())

    @property
    def nbytes(self) -> int:
        """Bytes of the images and of the centroids' embeddings."""
        if self.embeddings is None:
            return 0
        return self.images.nbytes + len(self.centroids()) * self.embeddings[0].nbytes

    def short(self, slot: int) -> Centroid:
        """The centroid in a slot of the STM that is not free."""
        centroid = self.stm[slot]
        assert centroid is not None, "a free slot has no embedding to be near to"
        return centroid

    def short_term(self) -> list[tuple[int, Centroid]]:
        """Centroids of the STM, with their numbers."""
        return [(slot, centroid) for slot, centroid in enumerate(self.stm) if centroid is not None]

    def long_term(self) -> list[tuple[int, Centroid]]:
        """Centroids of the LTM, with their numbers."""
        return [*enumerate(self.ltm, start=len(self.stm))]

    def centroids(self) -> list[tuple[int, Centroid]]:
        """All of them, in the order of their numbers."""
        return self.short_term() + self.long_term()

    def room(self, dim: int) -> Tensor:
        """The embeddings; made for `dim` numbers each if there are none yet."""
        if self.embeddings is None:
            self.embeddings = torch.zeros(self._most, dim, device=self.device)
        return self.embeddings

    def state_dict(self) -> dict[str, Any]:
        """Centroids in the order of their numbers, and images in theirs, whatever their rows."""
        state: dict[str, Any] = {"seen": self.seen, "cycle": self.cycle, "centroids": []}
        if self.embeddings is None:
            return state
        held = self.centroids()
        rows = [*dict.fromkeys(chain.from_iterable(centroid.rows for _, centroid in held))]
        place = {row: i for i, row in enumerate(rows)}
        state["images"] = self.images.take(rows)
        state["embeddings"] = self.embeddings[[number for number, _ in held]]
        state["centroids"] = [
            {
                "number": number,
                "images": [place[row] for row in centroid.rows],
                "arrivals": [*centroid.arrivals],
                "matches": centroid.matches,
                "touched": centroid.touched,
            }
            for number, centroid in held
        ]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self.seen, self.cycle = state_dict["seen"], state_dict["cycle"]
        self.stm, self.ltm, self.embeddings = [None] * len(self.stm), [], None
        for saved in state_dict["centroids"]:
            centroid = Centroid(
                [*saved["images"]], [*saved["arrivals"]], saved["matches"], saved["touched"]
            )
            if saved["number"] < len(self.stm):
                self.stm[saved["number"]] = centroid
            else:
                self.ltm.append(centroid)
        if "embeddings" not in state_dict:
            self.images.clear()
            return
        owned = [*chain.from_iterable(saved["images"] for saved in state_dict["centroids"])]
        self.images.refill(state_dict["images"], owned)
        numbers = [saved["number"] for saved in state_dict["centroids"]]
        # A checkpoint comes back on the CPU, whichever device it was written from.
        embeddings = state_dict["embeddings"].to(self.device)
        self.room(embeddings.shape[1])[numbers] = embeddings

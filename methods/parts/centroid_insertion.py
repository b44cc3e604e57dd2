"""Where CLIMB's memory puts an image: with a centroid, in one of its own, or nowhere."""

from __future__ import annotations

import math
from typing import final

import torch

from methods.parts.centroid_rules import Rules
from methods.parts.centroid_store import Centroid, CentroidStore
from methods.parts.centroid_vectors import Floats, Vectors
from methods.parts.example_choice import KEEPS, PLACES
from methods.parts.novelty import NoveltyWindow

REPEATS = 10  # times that the released code pushes each distance
TRANSFERRED = -1  # matches of a centroid that the released code has copied to the LTM


@final
class Insertion:
    """The decisions on one image after the other; see `CentroidMemory` for what they are."""

    def __init__(
        self, rules: Rules, store: CentroidStore, window: NoveltyWindow, rng: torch.Generator
    ) -> None:
        self.rules = rules
        self.store = store
        self.window = window
        self.rng = rng

    def insert(self, vectors: Vectors, z: Floats, position: int) -> None:
        """Find the place of the `position`-th image of a batch, whose embedding is z (D,)."""
        distances = vectors.distances(z)
        near = int(distances.argmin())
        nearest = float(distances[near])
        seen, free = self.store.seen, None in self.store.stm
        filling = self.rules.opens_unasked(seen=seen, free=free)
        changed: int | None = None
        if filling or nearest > self.window.threshold:
            changed = self._open(vectors, z, position)
        elif nearest <= self.window.threshold:  # it may not be a number
            changed = self._match(vectors, z, near, position)
        self.store.seen += 1
        self._observe(math.inf if filling and self.rules.upstream else nearest)
        if changed is not None and self._is_ripe(changed):
            self._promote(vectors, changed)

    def _observe(self, distance: float) -> None:
        """Push the distance of an image in the window; an infinite one is none."""
        known = distance if math.isfinite(distance) else None
        if self.rules.upstream:
            self.window.push(known, times=REPEATS)
        elif known is not None:
            self.window.push(known)

    def _open(self, vectors: Vectors, z: Floats, position: int) -> int:
        """Open a centroid in the first free slot, or in that of the oldest; the slot."""
        store, matches = self.store, 0
        if None in store.stm:
            slot = store.stm.index(None)
        else:
            _, slot = min((centroid.touched, slot) for slot, centroid in store.short_term())
            store.images.release(store.short(slot).rows)
            matches = 1
        row = store.images.reserve(position)
        store.stm[slot] = Centroid([row], [store.cycle], matches, touched=store.seen)
        vectors.write(slot, z)
        return slot

    def _match(self, vectors: Vectors, z: Floats, near: int, position: int) -> int | None:
        """Give an image to the nearest centroid; the slot of the STM, if one has changed."""
        store = self.store
        if near >= len(store.stm):
            self._match_ltm(store.ltm[near - len(store.stm)], position)
            return None
        if self.rules.upstream and store.short(0).matches == TRANSFERRED:
            return None
        centroid = store.short(near)
        vectors.pull(near, z, self.rules.stm_rate)
        if len(centroid.rows) < self.rules.examples:
            centroid.rows.append(store.images.reserve(position))
            centroid.arrivals.append(store.cycle)
        centroid.matches += 1
        centroid.touched = store.seen
        return near

    def _match_ltm(self, centroid: Centroid, position: int) -> None:
        """Give an image to a centroid of the LTM, which stays where it is.

        It is full: a promotion brings `examples` images, and a merge keeps as many.
        """
        store = self.store
        centroid.matches += 1
        place = PLACES[self.rules.ltm_replace](centroid.arrivals, centroid.matches, self.rng)
        if place is not None:
            store.images.release([centroid.rows[place]])
            centroid.rows[place] = store.images.reserve(position)
            centroid.arrivals[place] = store.cycle

    def _is_ripe(self, slot: int) -> bool:
        centroid = self.store.short(slot)
        gathered = centroid.matches if self.rules.counts_matches else len(centroid.rows)
        return gathered >= self.rules.examples

    def _promote(self, vectors: Vectors, slot: int) -> None:
        """Move a centroid from the STM to the LTM, and merge two there if it is one too many."""
        store, centroid = self.store, self.store.short(slot)
        vectors.write(len(store.stm) + len(store.ltm), vectors.values[slot])
        store.ltm.append(Centroid(centroid.rows, [store.cycle] * len(centroid.rows)))
        if self.rules.upstream:
            centroid.rows = [store.images.share(centroid.rows[0])]
            centroid.arrivals = centroid.arrivals[:1]
            centroid.matches = TRANSFERRED
        else:
            store.stm[slot] = None
            vectors.drop(slot)
        if len(store.ltm) > self.rules.ltm_centroids:
            self._merge(vectors)

    def _merge(self, vectors: Vectors) -> None:
        """Merge the two most similar centroids of the LTM, and their images."""
        store, first = self.store, len(self.store.stm)
        last = first + len(store.ltm)
        one, other = vectors.closest_pair(first, last)
        vectors.merge(one, other, last)
        kept, gone = store.ltm[one - first], store.ltm.pop(other - first)
        rows, arrivals = kept.rows + gone.rows, kept.arrivals + gone.arrivals
        places = KEEPS[self.rules.ltm_merge](arrivals, self.rules.examples, self.rng)
        store.images.release(rows[i] for i in sorted({*range(len(rows))} - {*places}))
        store.ltm[one - first] = Centroid([rows[i] for i in places], [arrivals[i] for i in places])

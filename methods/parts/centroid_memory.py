"""CLIMB's memory: images around centroids, novel ones short-term, those that recur long-term.

CoLLAs 2026 (github.com/lefebvju/climb, README and src/buffers/climb_buffer.py). An
image far from every centroid opens one in the short-term memory (STM), at the cost of the one that
waited longest for a match; another joins the nearest. An STM centroid that gathered enough images
moves to the long-term memory (LTM), where the two most similar merge when there is no room.

Where the README and the released code leave a choice:
- A promotion moves centroid and images: no image is held twice, and the STM slot is free. With
  `cold_start` "fill" the next image opens a centroid there, whatever its distance; otherwise it
  waits for a novel one.
- A centroid has 0 matches in a free slot, 1 in place of an evicted one, 0 in the LTM after a
  promotion or a merge; only promotion by matches and the reservoir ask.
- The similarities of LTM centroids are computed when two must merge. The released code keeps a
  matrix, which the drift of replay makes stale and which knows nothing of the first centroid.
- A distance that is not a number (a run that diverges) counts as infinite and stays out of the
  window: such an image is novel, and the trial's own check ends it.
- At least one image more fits than a consolidation may leave, or the memory would stay full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from methods.parts.centroid_insertion import Insertion
from methods.parts.centroid_rules import UNIFORM, Rules
from methods.parts.centroid_store import CentroidStore
from methods.parts.centroid_vectors import Vectors, drift_plan
from methods.parts.novelty import NoveltyWindow
from methods.parts.transfers import sent

EMBED_BATCH = 256  # images per call of `embed`; bounds the memory of a consolidation
RESET_SAMPLE = 2000  # embeddings that a reset window starts from; released code


@dataclass(frozen=True, slots=True)
class Draw:
    """Replayed images (size, C, H, W), those of the LTM first, and what they will move.

    The embedding of image i moves the centroid of number `owners[i]` by `rates[i]` of the way.
    """

    x: Tensor
    owners: Sequence[int]
    rates: Sequence[float]


@final
class CentroidMemory:
    """STM and LTM of `capacity` images, at which it is full, and the `slack` of a batch.

    With `rules.upstream` it decides as the released code does:
    - While the STM fills, images have no distance, and that enters the window: there is no
      threshold until the window has few enough of them, and images are neither stored nor matched
      (96 of them by default).
    - A distance enters the window ten times, so that it covers a tenth of the images.
    - A promotion is a copy, made at `examples` matches. A ghost stays in the STM with the first
      image, which then counts in both memories; a match lets it refill.
    - Matches with STM centroids count only while the one in slot 0 is no ghost.
    - Replayed embeddings come LTM first and are consumed STM first, so that they move centroids
      of other images. In a draw over everything images come as drawn.

    Three more of its behaviours are faults that give no result of their own and are not repeated:
    it stops with an error when the memory is full before any promotion (here an empty LTM is a
    normal state), has options that nothing reads, and resumes without its momentum networks.
    """

    kind = "exemplars"

    def __init__(
        self, rules: Rules, *, capacity: int, slack: int, rng: torch.Generator, device: torch.device
    ) -> None:
        """An empty memory.

        Args:
            rules: its sizes and rates.
            capacity: images at which it is full.
            slack: images that `add` may bring after it was last found not to be full.
            rng: for the images that full centroids keep; its owner saves its state.
            device: of the images and of the centroids' embeddings.

        Raises:
            ValueError: if a consolidation could leave the memory full.
        """
        rules.check_capacity(capacity)
        self.rules = rules
        self.capacity = capacity
        self.rng = rng
        self.device = device
        self._window = NoveltyWindow(rules.window, rules.percentile)
        self._store = CentroidStore(rules, capacity + slack, device)
        self._insertion = Insertion(rules, self._store, self._window, rng)

    def __len__(self) -> int:
        """Images of all centroids."""
        return len(self._store)

    @property
    def full(self) -> bool:
        """Whether it is time to consolidate."""
        return len(self) >= self.capacity

    @property
    def threshold(self) -> float:
        """The distance above which the next image is novel."""
        return self._window.threshold

    @property
    def nbytes(self) -> int:
        """Bytes of the images stored and of the centroids' embeddings."""
        return self._store.nbytes

    def draw(self, size: int, rng: torch.Generator) -> Draw | None:
        """Images of both memories, none twice, each of a memory equally likely.

        The LTM gives `ratio_ltm` of them; what one memory lacks, the other gives.

        Returns:
            `size` images, or None while fewer are stored.
        """
        held = self._store.long_term() + self._store.short_term()
        counts = [len(centroid.rows) for _, centroid in held]
        long_term, total = sum(counts[: len(self._store.ltm)]), sum(counts)
        if total < size:
            return None
        rows = [*chain.from_iterable(centroid.rows for _, centroid in held)]
        owners = np.repeat([number for number, _ in held], counts)
        rates = self.rules.replay_rate / np.repeat(counts, counts)
        picks = self._picks(size, long_term, total, rng)
        x = self._store.images.take([rows[pick] for pick in picks])
        if self.rules.upstream:  # consumed STM first; sorting keeps the order in each memory
            picks = sorted(picks, key=lambda pick: pick < long_term)
        return Draw(x, owners[picks].tolist(), rates[picks].tolist())

    def _picks(self, size: int, long_term: int, total: int, rng: torch.Generator) -> list[int]:
        """Numbers of `size` of `total` images, of which the first `long_term` are the LTM's."""
        if self.rules.ratio_ltm == UNIFORM:
            picks = torch.randperm(total, generator=rng)[:size].tolist()
            return picks if self.rules.upstream else sorted(picks)
        short_term = total - long_term
        first = min(int(self.rules.ratio_ltm * size), long_term)
        first = max(first, size - short_term)
        of_ltm = torch.randperm(long_term, generator=rng)[:first]
        of_stm = torch.randperm(short_term, generator=rng)[: size - first]
        return torch.cat([of_ltm, long_term + of_stm]).tolist()

    @torch.no_grad()
    def drift(self, draw: Draw, z: Tensor) -> None:
        """Move the centroids of replayed images towards their embeddings (size, D), in order.

        Nothing may have been added since the draw. Reads nothing from the device.

        Raises:
            ValueError: if there are more or fewer embeddings than images drawn.
        """
        embeddings = self._store.embeddings
        if embeddings is None or len(z) != len(draw.owners):
            raise ValueError(f"{len(z)} embeddings for a draw of {len(draw.owners)} images")
        plan = torch.from_numpy(drift_plan(draw.owners, draw.rates, len(embeddings)))
        plan = sent(plan, self.device)
        embeddings.mul_(plan[:, :1]).add_(plan[:, 1:] @ z.float())

    @torch.no_grad()
    def add(self, x: Tensor, z: Tensor) -> None:
        """Insert raw images (B, C, H, W) with their embeddings (B, D), one after the other.

        Raises:
            ValueError: if they might not fit, the memory not being consolidated when it was full.
        """
        store = self._store
        if len(x) > store.images.free:
            raise ValueError(
                f"{len(x)} images for {store.images.free} free rows; consolidate first"
            )
        if len(x) != len(z):
            raise ValueError(f"{len(z)} embeddings for {len(x)} images")
        embeddings = store.room(z.shape[1])
        size = len(embeddings)
        host = torch.cat([embeddings, z.float()]).cpu().numpy()  # the only wait for the device
        live = np.zeros(size, dtype=np.bool_)
        live[[number for number, _ in store.centroids()]] = True
        vectors = Vectors(host[:size], live)
        for position, embedding in enumerate(host[size:]):
            self._insertion.insert(vectors, embedding, position)
        embeddings.copy_(torch.from_numpy(vectors.values))
        store.images.write(x)

    @torch.no_grad()
    def consolidate(self, embed: Callable[[Tensor], Tensor]) -> None:
        """Put centroids where the network sees their images now; the STM keeps one image each.

        Args:
            embed: from raw images (B, C, H, W) on the device to embeddings (B, D), in eval mode.
        """
        store = self._store
        drops = self.rules.pruning == "reset_stm"
        moved = store.long_term() if drops else store.centroids()
        moved = [(number, centroid) for number, centroid in moved if centroid.rows]
        if store.embeddings is not None and moved:
            z = self._embed([*chain.from_iterable(centroid.rows for _, centroid in moved)], embed)
            parts = z.split([len(centroid.rows) for _, centroid in moved])
            numbers = torch.tensor([number for number, _ in moved]).to(self.device)
            store.embeddings[numbers] = torch.stack([part.mean(0) for part in parts])
            if self.rules.pruning == "reset":
                self._window.restart(self._nearest_distances(z))
        for _, centroid in store.short_term():
            keep = 0 if drops else 1
            store.images.release(centroid.rows[keep:])
            del centroid.rows[keep:], centroid.arrivals[keep:]
            centroid.matches = 0
        store.cycle += 1

    def _embed(self, rows: Sequence[int], embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Embeddings of the images in these rows, (len(rows), D)."""
        starts = range(0, len(rows), EMBED_BATCH)
        found = [embed(self._store.images.take(rows[i : i + EMBED_BATCH])) for i in starts]
        return torch.cat(found).float()

    def _nearest_distances(self, z: Tensor) -> list[float]:
        """Of a sample of embeddings (N, D), each one's cosine distance to the nearest other."""
        picks = torch.randperm(len(z), generator=self.rng)[:RESET_SAMPLE]
        unit = normalize(z[picks.to(self.device)], dim=1)
        distances = (1 - unit @ unit.T).fill_diagonal_(math.inf)
        return [d for d in distances.amin(1).tolist() if math.isfinite(d)]

    def state_dict(self) -> dict[str, Any]:
        return {"store": self._store.state_dict(), "window": self._window.distances}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        self._store.load_state_dict(state_dict["store"])
        self._window.restart(state_dict["window"])

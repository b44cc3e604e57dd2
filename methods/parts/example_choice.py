"""Which images a full centroid of CLIMB's long-term memory keeps (CoLLAs 2026, released code).

The released code also compares the embeddings of stored images with the new one (`similar`). That
is left out: it would hold an embedding of 2048 numbers beside every image of 3072 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

Replace = Literal["random", "oldest", "reservoir", "none"]
Merge = Literal["random", "balanced"]

Place = Callable[[Sequence[int], int, torch.Generator], int | None]
"""(arrivals, matches, rng) -> position of the image that gives way, None: the new one is dropped.

`arrivals` are the consolidation cycles in which the stored images came, `matches` the number of
images that have matched the centroid in the long-term memory, with the new one.
"""

Keep = Callable[[Sequence[int], int, torch.Generator], list[int]]
"""(arrivals, room, rng) -> positions of the `room` images kept of more, in the order to come."""


def random_place(arrivals: Sequence[int], matches: int, rng: torch.Generator) -> int | None:
    """Any, for every second image on average."""
    del matches
    return _any(len(arrivals), rng) if _chance(0.5, rng) else None


def oldest_place(arrivals: Sequence[int], matches: int, rng: torch.Generator) -> int | None:
    """The first of those of the earliest cycle, for every image."""
    del matches, rng
    return arrivals.index(min(arrivals))


def reservoir_place(arrivals: Sequence[int], matches: int, rng: torch.Generator) -> int | None:
    """Any, with probability size / matches; every image until as many as it holds have matched."""
    return _any(len(arrivals), rng) if _chance(len(arrivals) / matches, rng) else None


def no_place(arrivals: Sequence[int], matches: int, rng: torch.Generator) -> int | None:
    """None: the first images stay."""
    del arrivals, matches, rng
    return None


def keep_random(arrivals: Sequence[int], room: int, rng: torch.Generator) -> list[int]:
    """Each equally likely, in the order they had."""
    return sorted(torch.randperm(len(arrivals), generator=rng)[:room].tolist())


def keep_balanced(arrivals: Sequence[int], room: int, rng: torch.Generator) -> list[int]:
    """The share of every cycle stays what it was; of a cycle, the first images are kept.

    A cycle's quota is room * its images / all images, rounded down; places left over go to the
    cycles with the largest remainders, on ties to the one that comes first. Images of a cycle
    stand together from then on.
    """
    del rng
    places: dict[int, list[int]] = {}
    for position, cycle in enumerate(arrivals):
        places.setdefault(cycle, []).append(position)
    shares = {cycle: room * len(found) for cycle, found in places.items()}
    quota = {cycle: share // len(arrivals) for cycle, share in shares.items()}
    by_remainder = sorted(shares, key=lambda cycle: -(shares[cycle] % len(arrivals)))
    for cycle in by_remainder[: room - sum(quota.values())]:
        quota[cycle] += 1
    return [position for cycle in places for position in places[cycle][: quota[cycle]]]


PLACES: Mapping[Replace, Place] = {
    "random": random_place,
    "oldest": oldest_place,
    "reservoir": reservoir_place,
    "none": no_place,
}
KEEPS: Mapping[Merge, Keep] = {"random": keep_random, "balanced": keep_balanced}


def _chance(p: float, rng: torch.Generator) -> bool:
    return float(torch.rand((), generator=rng, dtype=torch.float64)) < p


def _any(size: int, rng: torch.Generator) -> int:
    return int(torch.randint(size, (), generator=rng))

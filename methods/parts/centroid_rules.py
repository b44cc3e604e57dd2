"""Sizes and rates of CLIMB's memory of centroids (CoLLAs 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from methods.parts.example_choice import Merge, Replace

ColdStart = Literal["fill", "first", "threshold"]
PromoteOn = Literal["examples", "matches"]
Pruning = Literal["no_reset", "reset", "reset_stm"]

UNIFORM = -1  # `ratio_ltm` of the released code for a draw over everything
CHOICES = {
    "cold_start": get_args(ColdStart),
    "promote_on": get_args(PromoteOn),
    "ltm_replace": get_args(Replace),
    "ltm_merge": get_args(Merge),
    "pruning": get_args(Pruning),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Sizes and rates of the memory (CLIMB's README), and how it decides.

    Attributes:
        stm_centroids: slots of the short-term memory (L).
        ltm_centroids: most centroids of the long-term memory (K).
        examples: most images of a centroid; a short-term one that has as many is promoted (M).
        window: distances that the novelty threshold is a percentile of.
        percentile: which percentile, in (0, 1).
        stm_rate: how far a match moves a short-term centroid towards the image.
        ratio_ltm: share of a draw from the long-term memory; -1: each image equally likely.
        replay_rate: a replayed image moves a centroid of n images by replay_rate / n.
        cold_start: when an image opens a centroid unasked: "fill", while a slot of the short-term
            memory is free, one that a promotion has freed included; "first", as the first
            `stm_centroids` images of the stream (released code); "threshold", never: the threshold
            decides from the second distance on (README).
        promote_on: promote at `examples` images (README) or at as many matches (released code).
        ltm_replace: what a match with a full long-term centroid replaces; see `example_choice`.
        ltm_merge: which images two merged centroids keep; see `example_choice`.
        pruning: what a consolidation does besides: nothing, "reset" the window, or "reset_stm",
            drop the images of the short-term memory, whose embeddings are then not refreshed.
        upstream: decide as the released code does where it departs from the README; see
            `CentroidMemory`. `cold_start` and `promote_on` are not asked then.
    """

    stm_centroids: int
    ltm_centroids: int
    examples: int
    window: int
    percentile: float
    stm_rate: float
    ratio_ltm: float
    replay_rate: float
    cold_start: ColdStart
    promote_on: PromoteOn
    ltm_replace: Replace
    ltm_merge: Merge
    pruning: Pruning
    upstream: bool

    def __post_init__(self) -> None:
        for name in ("stm_centroids", "ltm_centroids", "examples", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.percentile < 1:
            raise ValueError(f"percentile must be above 0 and below 1, got {self.percentile}")
        for name in ("stm_rate", "replay_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not (0 <= self.ratio_ltm <= 1 or self.ratio_ltm == UNIFORM):
            raise ValueError(f"ratio_ltm must be from 0 to 1, or -1, got {self.ratio_ltm}")
        self._check_choices()

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")

    def opens_unasked(self, *, seen: int, free: bool) -> bool:
        """Whether an image opens a centroid whatever its distance.

        Args:
            seen: images before it.
            free: whether a slot of the short-term memory is.
        """
        if self.upstream or self.cold_start == "first":
            return seen < self.stm_centroids
        return free and self.cold_start == "fill"

    @property
    def counts_matches(self) -> bool:
        """Whether promotion counts matches, not images."""
        return self.upstream or self.promote_on == "matches"

    @property
    def least_capacity(self) -> int:
        """One image more than may be left after a consolidation."""
        anchors = 0 if self.pruning == "reset_stm" else self.stm_centroids
        return self.ltm_centroids * self.examples + anchors + 1

    def check_capacity(self, capacity: int) -> None:
        """Refuse a memory that a consolidation could leave full.

        Raises:
            ValueError: naming the sizes.
        """
        if capacity < self.least_capacity:
            raise ValueError(
                f"a memory of {capacity} images is too small: {self.ltm_centroids} centroids of "
                f"{self.examples} images and {self.stm_centroids} in the short-term memory need "
                f"room for {self.least_capacity}"
            )

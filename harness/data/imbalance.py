"""Long-tailed training sets: few classes with many images and many with few, for any data set.

The setting `imbalance` of a data set's entry, whatever the set: `{kind: exponential, max: 1000,
min: 5}`. The exponential profile is that of long-tailed class-incremental learning (Liu et al.,
ECCV 2022, github.com/xialeiliu/Long-Tailed-CIL); the sizes of the largest and the
smallest class are BrainCL's (arXiv:2504.14727). Test images stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from harness.data.base import DataError, Dataset
from harness.seeds import generator


@dataclass(frozen=True, slots=True)
class Imbalance:
    """How many training images each class keeps.

    Attributes:
        max: of the largest class.
        min: of the smallest class.
        kind: "exponential", from rank to rank by the same factor.
        ranks: which class is how large: "shuffled" by the trial's seed, or "ordered", the largest
            first in the class order.
    """

    max: int
    min: int
    kind: Literal["exponential"] = "exponential"
    ranks: Literal["shuffled", "ordered"] = "shuffled"

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise ValueError(f"imbalance: 1 <= min <= max is needed, got {self.min} and {self.max}")

    def sizes(self, num_classes: int) -> tuple[int, ...]:
        """Images of each rank, the largest first."""
        ratio, last = self.min / self.max, max(1, num_classes - 1)
        return tuple(
            max(self.min, round(self.max * ratio ** (rank / last))) for rank in range(num_classes)
        )


def long_tailed(
    dataset: Dataset, imbalance: Imbalance, *, order: Sequence[int], seed: int
) -> Dataset:
    """The data set with as many training images of each class as the profile says.

    Args:
        dataset: with labels in its natural order, on the CPU.
        imbalance: the profile.
        order: the natural labels in the class order of the scenario.
        seed: the trial's raw seed; draws the images and, if they are shuffled, the ranks.

    Raises:
        DataError: if a class has fewer images than it should keep.
    """
    rng = generator(seed, "imbalance")
    ranks = torch.randperm(len(order), generator=rng).tolist()
    wanted = [0] * len(order)
    for place, size in enumerate(imbalance.sizes(len(order))):
        wanted[order[ranks[place] if imbalance.ranks == "shuffled" else place]] = size
    labels = dataset.train.y.cpu()
    _check(dataset, labels, wanted, imbalance)
    kept = torch.cat([_drawn(labels, label, count, rng) for label, count in enumerate(wanted)])
    return replace(dataset, train=dataset.train.only(kept.sort().values))


def _check(dataset: Dataset, labels: Tensor, wanted: Sequence[int], imbalance: Imbalance) -> None:
    """Every class must have enough; with shuffled ranks for any rank, so that no seed decides."""
    shuffled = imbalance.ranks == "shuffled"
    for label, count in enumerate(labels.bincount(minlength=len(wanted)).tolist()):
        needed = imbalance.max if shuffled else wanted[label]
        if count < needed:
            raise DataError(
                f"{dataset.name}: imbalance may ask for {needed} training images of class "
                f"{dataset.class_names[label]!r}, which has {count}; lower imbalance.max or "
                "imbalance.min"
            )


def _drawn(labels: Tensor, label: int, count: int, rng: torch.Generator) -> Tensor:
    """`count` random rows of one class."""
    rows = (labels == label).nonzero()[:, 0]
    return rows[torch.randperm(len(rows), generator=rng)[:count]]

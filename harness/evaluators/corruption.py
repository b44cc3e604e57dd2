"""Accuracy on corrupted images, all classes seen so far competing.

The 15 corruptions at five severities of ImageNet-C (Hendrycks and Dietterich, 2019,
arXiv:1903.12261), which BrainCL (arXiv:2504.14727) shows over the tasks of class-incremental
learning: methods are trained on clean images. Made here of the measured images
(`harness.data.corruptions`), or read as stored by the authors (data set imagenet_c): its images
are paired with the measured ones by the names of the classes and, in each class, by their order.

An image is corrupted in the same way after every task and for every method of a seed. Which
severities the paper's means are over is not stated there; ours are over all that are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from harness.data.base import DataError, Dataset, Split
from harness.data.corruptions.pixels import SEVERITIES
from harness.data.corruptions.registry import CORRUPTIONS
from harness.data.scenarios import Scenario
from harness.data.sets import imagenet_c
from harness.data.sets.imagenet_c import Variant
from harness.data.shelf import load
from harness.errors import UserError, unknown
from harness.measure import EVAL_BATCH, Checkpoint, Evaluator, Measurement
from harness.schema import ALL_TASKS


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the measurement.

    Attributes:
        corruptions: names as in `harness.data.corruptions.registry`.
        severities: of 1 to 5.
        max_images: how many images of all tasks together are corrupted, as equally many of each
            task as can be; those of the tasks seen are measured. None: all.
        source: "generated", or "imagenet_c", the stored images, for data sets of ImageNet's
            validation images.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = SEVERITIES
    max_images: int | None = None
    source: Literal["generated", "imagenet_c"] = "generated"

    def __post_init__(self) -> None:
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise unknown("corruption", name, CORRUPTIONS, where="corruptions")
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise ValueError(f"severities are numbers from 1 to 5, got {severity}")
        for field in ("corruptions", "severities"):
            values: tuple[object, ...] = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{field} must name at least one, and none twice")
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images must be at least 1, got {self.max_images}")

    def variants(self) -> list[Variant]:
        """Each corruption at each severity."""
        return [(name, severity) for name in self.corruptions for severity in self.severities]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Images that are corrupted together: the `number`-th of a task, rows of the data set."""

    task: int
    number: int
    rows: Tensor
    labels: Tensor


class CorruptionAccuracy(Evaluator):
    needs_predictions: ClassVar[bool] = True
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stored: _Stored | None = None

    def prepare(self, scenario: Scenario, data_root: Path) -> None:
        """Check `max_images`, and map the stored images into memory if they are asked for."""
        tasks, most = len(scenario.tasks), self.config.max_images
        if most is not None and most < tasks:
            raise UserError(f"corruption: max_images is {most}, fewer than the {tasks} tasks")
        if self.config.source == "imagenet_c":
            self._stored = _stored(scenario.dataset, self.config, data_root)

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        """`accuracy` under `corruption/severity`, and under `corruption` the mean over severities.

        `mean_corruption_accuracy` is the mean over both, `clean_accuracy` that of the same images
        uncorrupted, `relative_drop` the difference of the two.
        """
        blocks = _blocks(checkpoint, self.config.max_images)
        n = sum(len(block.rows) for block in blocks)
        data = _measured(checkpoint)
        clean = _accuracy(checkpoint, blocks, lambda block: data.images(block.rows))
        found: list[float] = []
        for name in self.config.corruptions:
            values: list[float] = []
            for severity in self.config.severities:
                corrupted = self._corrupted(checkpoint, (name, severity))
                values.append(_accuracy(checkpoint, blocks, corrupted))
                yield Measurement(ALL_TASKS, "accuracy", values[-1], n, f"{name}/{severity}")
            yield Measurement(ALL_TASKS, "accuracy", _mean(values), n, name)
            found += values
        mean = _mean(found)
        yield Measurement(ALL_TASKS, "mean_corruption_accuracy", mean, n)
        yield Measurement(ALL_TASKS, "clean_accuracy", clean, n)
        yield Measurement(ALL_TASKS, "relative_drop", clean - mean, n)

    def _corrupted(self, checkpoint: Checkpoint, variant: Variant) -> Callable[[_Block], Tensor]:
        """From a block to its images, corrupted, on the device of the trial."""
        data = _measured(checkpoint)
        if self._stored is not None:
            if checkpoint.split != "test":
                raise UserError("corruption: imagenet_c holds test images; set `split: test`")
            stored = self._stored
            return lambda block: stored.images(variant, block.rows)
        name, severity = variant

        def generated(block: _Block) -> Tensor:
            purpose = ("corruption", name, severity, block.task, block.number)
            rng = checkpoint.fixed_rng(*purpose)
            return CORRUPTIONS[name](data.images(block.rows), severity, rng)

        return generated


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """All variants of the test images of a data set; `place` (N,) is that of each in a variant."""

    x: Tensor
    place: Tensor
    variants: list[Variant]
    device: torch.device

    def images(self, variant: Variant, rows: Tensor) -> Tensor:
        start = self.variants.index(variant) * len(self.place)
        return self.x[start + self.place[rows.cpu()]].to(self.device)


def _stored(dataset: Dataset, config: Config, data_root: Path) -> _Stored:
    """Map the stored images into memory; they are decoded at the first call.

    Raises:
        DataError: if a folder or image is not there, or the data set's images have another shape.
    """
    channels, height, width = dataset.image_shape
    if channels != 3 or height != width:
        raise DataError(
            f"imagenet_c: its images are squares of 3 channels, but those of {dataset.name} are "
            f"{channels}x{height}x{width}"
        )
    labels, names = dataset.test.y.cpu(), dataset.class_names
    counts = labels.bincount(minlength=len(names)).tolist()
    ranked = sorted(range(len(names)), key=names.__getitem__)
    wanted = imagenet_c.Config(
        corruptions=config.corruptions,
        severities=config.severities,
        class_list=tuple(names[label] for label in ranked),
        size=width,
        test_per_class=tuple(counts[label] for label in ranked),
    )
    # In a variant classes follow each other as ranked, and so do the images of a class.
    rank = torch.tensor(ranked).argsort()
    place = torch.empty_like(labels)
    place[rank[labels].argsort(stable=True)] = torch.arange(len(labels))
    stored = load("imagenet_c", wanted, data_root).test
    return _Stored(stored.x, place, wanted.variants(), dataset.test.y.device)


def _measured(checkpoint: Checkpoint) -> Split:
    """The split of the data set that the measured images are rows of."""
    dataset = checkpoint.scenario.dataset
    return dataset.test if checkpoint.split == "test" else dataset.train


def _blocks(checkpoint: Checkpoint, most: int | None) -> list[_Block]:
    """The images of the tasks seen, or of each as many as `quotas` says; the same at every task.

    A task's blocks do not depend on the tasks seen, nor do the generators that are named after
    them.
    """
    labels, split = _measured(checkpoint).y, checkpoint.split
    of_task: list[Tensor] = [getattr(task, split) for task in checkpoint.scenario.tasks]
    blocks: list[_Block] = []
    counts = quotas([len(rows) for rows in of_task], most)
    for task in range(checkpoint.after_task + 1):
        rng = checkpoint.fixed_rng("corruption", "subset", task)
        shuffled = torch.randperm(len(of_task[task]), generator=rng)
        chosen = of_task[task][shuffled[: counts[task]].sort().values].to(labels.device)
        for number, rows in enumerate(chosen.split(EVAL_BATCH)):
            blocks.append(_Block(task, number, rows, labels[rows]))
    return blocks


def quotas(sizes: Sequence[int], total: int | None) -> list[int]:
    """How many of each of `sizes` images make `total`, as equal as can be; None takes all."""
    left, counts = sum(sizes) if total is None else total, list(sizes)
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for done, place in enumerate(by_size):
        counts[place] = min(sizes[place], left // (len(sizes) - done))
        left -= counts[place]
    return counts


def _accuracy(
    checkpoint: Checkpoint, blocks: Sequence[_Block], images: Callable[[_Block], Tensor]
) -> float:
    """Share of hits among the classes seen, with one transfer from the device."""
    seen = checkpoint.scenario.seen_classes(checkpoint.after_task)
    hits = [
        checkpoint.method.predict(images(block))[:, : seen.stop].argmax(1) == block.labels
        for block in blocks
    ]
    return torch.cat(hits).double().mean().item()


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


build = CorruptionAccuracy

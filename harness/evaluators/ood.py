"""Whether confidence tells images of the tasks seen from those of another data set.

The score of an image is its maximum softmax probability (Hendrycks and Gimpel, 2017,
arXiv:1610.02136) among the classes seen, of `Method.class_logits`. In distribution (ID) are the
measured images of the tasks seen; out of distribution (OOD) the test images of `dataset`, whatever
their labels. Both have the trial's shape: colour becomes grey by the luma of ITU-R BT.601, grey
becomes colour by repeating it, and sides are resized bilinearly with antialiasing, without keeping
their ratio.

Over all tasks:

- `auroc`: the probability that a random ID image scores above a random OOD one, ties counting 0.5;
- `aupr`: average precision with OOD as the positive class, by the negative score;
- `fpr95`: the share of OOD images that score at least t, where t is the largest threshold that at
  least 95 % of the ID images reach;
- `fpr95` under the condition `ood_positive`: the reverse, the share of ID images that score at most
  t, where t is the smallest threshold that at least 95 % of the OOD images stay at or below;
- `mean_confidence` under the conditions `id` and `ood`.

`auroc`, `aupr` and `ood_positive` are those of ImageNet-O (calibration_tools.py of
github.com/hendrycks/natural-adv-examples), which takes the threshold whose rate is nearest to 95 %,
be it above or below. Deviation from there: all classes seen compete, and all of their images are
ID, not those of 200 classes alone.

Details `ood`, a row a bin of the scores from 0 to 1: `left` and `right`, its edges; `id` and `ood`,
the densities of the two histograms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor
from torch.nn import functional as F

from harness import plugins
from harness.data.base import DataError, Dataset
from harness.data.entries import IMBALANCE, dataset_component, dataset_entry
from harness.data.scenarios import Scenario
from harness.data.shelf import load
from harness.measure import EVAL_BATCH, Checkpoint, Details, Evaluator, Measurement, as_numpy
from harness.schema import ALL_TASKS
from harness.seeds import generator

LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601
RATE: Final = 0.95  # of true positives, for fpr95

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Config:
    # A name, or a mapping of a name and the set's settings. What a set leaves to a trial's seed is
    # its default here.
    dataset: str | dict[str, Any]
    max_images: int | None = None  # so many of its test images, the same in all trials; None: all
    bins: int = 50  # of the histograms

    def __post_init__(self) -> None:
        name, values = plugins.split_name(self.dataset, where="dataset")
        chosen = dataset_component(name, values, where="dataset").settings
        if IMBALANCE in chosen:
            raise ValueError(f"dataset: {IMBALANCE} changes no test image, and only they are used")
        # Complete, as trials with the same settings have the same id.
        object.__setattr__(self, "dataset", {"name": name, **chosen})
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images must be at least 1, got {self.max_images}")
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")


class OutOfDistribution(Evaluator):
    needs_predictions: ClassVar[bool] = True
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._images: Tensor | None = None

    def prepare(self, scenario: Scenario, data_root: Path) -> None:
        """Load the other data set and bring its test images to the scenario's shape.

        Raises:
            DataError: if it is not there, has images of other than 1 or 3 channels, or is the
                trial's own set with a class in common.
        """
        name, values = plugins.split_name(self.config.dataset, where="ood")
        other = load(name, dataset_entry(name, values, where="ood").config, data_root)
        _check_other(other, scenario.dataset)
        rows = torch.arange(len(other.test))
        if self.config.max_images is not None:
            # The set may be sorted by class, so that its first images would not stand for it.
            order = torch.randperm(len(rows), generator=generator(0, "out of distribution"))
            rows = order[: self.config.max_images].sort().values
        self._images = reshaped(other.test.images(rows), scenario.dataset.image_shape)

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        known = checkpoint.task(checkpoint.split) <= checkpoint.after_task
        seen = checkpoint.scenario.seen_classes(checkpoint.after_task)
        inside = confidence(checkpoint.class_logits[known, : seen.stop])
        outside = confidence(self._logits(checkpoint)[:, : seen.stop])
        if not len(inside):
            return
        both = len(inside) + len(outside)
        for metric, condition, value in separation(inside, outside):
            yield Measurement(ALL_TASKS, metric, value, both, condition)
        for name, scores in (("id", inside), ("ood", outside)):
            yield Measurement(ALL_TASKS, "mean_confidence", float(scores.mean()), len(scores), name)
        yield Details("ood", _densities(inside, outside, self.config.bins))

    def _logits(self, checkpoint: Checkpoint) -> Tensor:
        """Those of the other data set's images, (N, num_classes)."""
        assert self._images is not None, "prepare comes first"
        device = checkpoint.scenario.dataset.test.y.device
        batches = self._images.split(EVAL_BATCH)
        return torch.cat([checkpoint.method.class_logits(x.to(device)) for x in batches])


def _check_other(other: Dataset, own: Dataset) -> None:
    # Names of classes say nothing across sets: those of ImageNet-O are ImageNet's.
    shared = sorted(set(other.class_names) & set(own.class_names))
    if other.name == own.name and shared:
        raise DataError(
            f"ood: {other.name} is the trial's own data set, with {len(shared)} classes in common, "
            f"such as {shared[0]!r}; name another set or other classes"
        )


def reshaped(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Images uint8 (N, C, H, W) as uint8 (N, *shape), as the top of the file says.

    Raises:
        DataError: if their channels or those of the shape are neither 1 nor 3.
    """
    if images.shape[1:] == shape:
        return images
    channels = {images.shape[1], shape[0]}
    if not channels <= {1, 3}:
        raise DataError(f"ood: images of {images.shape[1]} channels cannot become ones of {shape}")
    return torch.cat([_reshaped(x, shape) for x in images.split(EVAL_BATCH)])


def _reshaped(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    x = images.float()
    if x.shape[1] > shape[0]:
        x = (x * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    if x.shape[2:] != shape[1:]:
        x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8).expand(-1, shape[0], -1, -1)


def confidence(logits: Tensor) -> Scores:
    """The maximum softmax probability of each row of logits (N, C), (N,)."""
    return as_numpy(logits.double().softmax(1).amax(1))


def separation(inside: Scores, outside: Scores) -> Iterator[tuple[str, str | None, float]]:
    """Metric, condition and value of each number that compares ID scores with OOD scores."""
    is_inside = np.repeat([1, 0], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    yield "auroc", None, float(roc_auc_score(is_inside, scores))
    yield "aupr", None, float(average_precision_score(1 - is_inside, -scores))
    yield "fpr95", None, _false_positives(is_inside, scores)
    yield "fpr95", "ood_positive", _false_positives(1 - is_inside, -scores)


def _false_positives(positive: npt.NDArray[np.int64], scores: Scores) -> float:
    """Their rate at the first threshold at which that of true positives is at least RATE."""
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(false[np.argmax(true >= RATE)])


def _densities(inside: Scores, outside: Scores, bins: int) -> dict[str, npt.NDArray[Any]]:
    edges = np.linspace(0, 1, bins + 1)
    densities = [np.histogram(s, edges, density=True)[0] for s in (inside, outside)]
    return dict(
        zip(("left", "right", "id", "ood"), (edges[:-1], edges[1:], *densities), strict=True)
    )


build = OutOfDistribution

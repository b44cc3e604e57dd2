"""A map of the features in the plane by t-SNE, and how well the classes are apart in it.

Of the measured images of the tasks seen, `per_class` of each class, drawn once: the same after
every task and for all methods. (Where the tasks are domains, images of later ones may take the
place of earlier ones.) Their features are scaled to length 1 and reduced to 50 dimensions by PCA,
then to two by t-SNE (van der Maaten and Hinton, JMLR 2008; scikit-learn's, begun from PCA), whose
seed is fixed.

`silhouette` (Rousseeuw, 1987): the mean over images of (b - a) / max(a, b), where a is the mean
distance to the others of its class and b that to the images of the nearest other class; of the
features scaled to length 1, and under the condition `map` of the points of the map. Not there for
a single class, or where each image is the only one of its class.

Details `embedding`, a row an image: `image`, its row number in the measured part; `x`, `y`,
`label`, `task`. Nothing is given for fewer than four images, or features that do not vary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn import functional as F

from harness.measure import Checkpoint, Details, Evaluator, Measurement, as_numpy
from harness.schema import ALL_TASKS

DIMS: Final = 50  # before t-SNE, as scikit-learn's manual advises
FEWEST: Final = 4  # images of which a map says anything
SEED: Final = 0  # of t-SNE

Points = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Config:
    per_class: int = 20  # images of each class seen
    perplexity: float = 30.0  # scikit-learn's default; less where there are few images

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {self.per_class}")
        if not 1 <= self.perplexity < float("inf"):
            raise ValueError(f"perplexity must be at least 1, got {self.perplexity}")


class Embedding(Evaluator):
    config: Config

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        split = checkpoint.split
        places = chosen(checkpoint, self.config.per_class)
        features = F.normalize(checkpoint.features(split)[places].float(), dim=1)
        points = as_numpy(features).astype(np.float64)
        if len(points) < FEWEST or not np.ptp(points, axis=0).any():
            return
        labels = as_numpy(checkpoint.labels(split)[places])
        flat = plane(points, self.config.perplexity)
        if 1 < len(np.unique(labels)) < len(labels):
            for found, condition in ((points, None), (flat, "map")):
                value = float(silhouette_score(found, labels))
                yield Measurement(ALL_TASKS, "silhouette", value, len(labels), condition)
        columns = {
            "image": as_numpy(checkpoint.rows(split)[places]),
            "x": flat[:, 0],
            "y": flat[:, 1],
            "label": labels,
            "task": as_numpy(checkpoint.task(split)[places]),
        }
        yield Details("embedding", columns)


def chosen(checkpoint: Checkpoint, per_class: int) -> Tensor:
    """Places, among the measured images, of the drawn ones of each class seen, ascending."""
    split = checkpoint.split
    labels, task = checkpoint.labels(split).cpu(), checkpoint.task(split).cpu()
    # Every image has its place in the draw, seen or not, so that later tasks change nothing.
    drawn = torch.randperm(len(labels), generator=checkpoint.fixed_rng("embedding"))
    drawn = drawn[task[drawn] <= checkpoint.after_task]
    by_class = drawn[labels[drawn].argsort(stable=True)]
    counts = labels[drawn].bincount()
    turn = torch.arange(len(drawn)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return by_class[turn < per_class].sort().values.to(checkpoint.labels(split).device)


def plane(points: Points, perplexity: float) -> Points:
    """A map (N, 2) of points (N, D), float32; the perplexity stays below a third of N."""
    dims = min(DIMS, *points.shape)
    reduced = PCA(dims, svd_solver="full").fit_transform(points)
    below = min(perplexity, (len(points) - 1) / 3)
    start = "pca" if dims > 1 else "random"
    return TSNE(perplexity=below, init=start, random_state=SEED).fit_transform(reduced)


build = Embedding

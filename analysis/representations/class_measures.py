"""How far apart classes lie in a feature space: one number for every pair of classes.

The four measures of EDD (Moon and Cho, 2025, arXiv:2511.09871, appendices A.6 and B), which does
not state their estimators: those here are our choice, and the two of which the choice is least
clear come in a second form. Every function takes features (N, D) and labels (N,) and gives a matrix
(C, C) over the classes that occur, in ascending order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from analysis.metrics import Matrix

Vectors = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]
Measure = Callable[[Vectors, Labels], Matrix]

SAMPLE: Final = 500
"""Images a class that the Wasserstein distances take at most; our choice."""

SHRINKAGE: Final = 0.1
"""Weight of the mean variance in a class's variances; our choice."""

_RESOLUTION: Final = 1e-7
"""Distances below this share of the features' size are rounding (the root of a double's 1e-16)."""


def by_class(features: Vectors, labels: Labels) -> list[Matrix]:
    """The features of each class that occurs, float64 (n, D), by ascending label.

    Raises:
        ValueError: if the shapes do not fit, or there are no features.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.size:
        raise ValueError(
            f"features (N, D) and labels (N,) are wanted, not {features.shape} and {labels.shape}"
        )
    return [features[labels == label].astype(np.float64) for label in np.unique(labels)]


def centroids(features: Vectors, labels: Labels) -> Matrix:
    """The mean feature of each class, (C, D)."""
    return np.stack([part.mean(0) for part in by_class(features, labels)])


def class_cosines(features: Vectors, labels: Labels) -> Matrix:
    """Mean cosine of all pairs of images, one of each class; symmetric.

    It is the scalar product of the classes' mean unit vectors, so no pair is visited. The diagonal
    counts an image's pair with itself. A vector of zeros has the cosine 0 with all.
    """
    means = np.stack([_unit(part).mean(0) for part in by_class(features, labels)])
    return means @ means.T


def class_distances(features: Vectors, labels: Labels) -> Matrix:
    """Mean Euclidean distance of all pairs of images, one of each class; symmetric.

    The diagonal counts an image's pair with itself, at distance 0.
    """
    parts = by_class(_centred(features), labels)
    return _symmetric(parts, lambda a, b: float(_distances(a, b).mean()))


def class_wasserstein(
    features: Vectors, labels: Labels, *, n: int = SAMPLE, seed: int = 0
) -> Matrix:
    """1-Wasserstein distance with Euclidean cost between samples of the classes; symmetric.

    Exact for the samples: with equally many images of both classes, the optimal transport is an
    assignment. So every class gives as many as the smallest one has, and at most `n`, drawn
    without replacement by `seed`: the same images whatever their features. The distance between
    two samples of one distribution is not 0, and the larger the fewer they are.
    """
    return _symmetric(_samples(features, labels, n, np.random.default_rng(seed)), _assignment)


def class_wasserstein_sliced(
    features: Vectors,
    labels: Labels,
    *,
    n: int = SAMPLE,
    projections: int = 256,
    seed: int = 0,
) -> Matrix:
    """Mean 1-Wasserstein distance of the classes' projections to random lines; symmetric.

    Sliced Wasserstein distance (Bonneel et al., 2015, Journal of Mathematical Imaging and Vision
    51), on samples drawn as in `class_wasserstein`. Cheaper, and smaller than that by about
    sqrt(2 / (pi D)): a line sees that share of a shift.
    """
    rng = np.random.default_rng(seed)
    samples = np.stack(_samples(features, labels, n, rng))
    lines = _unit(rng.standard_normal((projections, features.shape[1])))
    sorted_ = np.sort(samples @ lines.T, axis=1)  # (C, n, projections)
    return np.stack([np.abs(sorted_ - one).mean((1, 2)) for one in sorted_])


def class_kl(features: Vectors, labels: Labels, *, shrinkage: float = SHRINKAGE) -> Matrix:
    """KL(P_c || P_d) of Gaussians with diagonal covariance, in nats; not symmetric.

    A class's variances are (1 - shrinkage) times its own plus `shrinkage` times the mean variance
    over all classes and dimensions, so that a feature that is silent in one class does not make the
    divergence infinite. NaN if no feature varies in any class.

    Raises:
        ValueError: if `shrinkage` is not above 0 and at most 1.
    """
    if not 0 < shrinkage <= 1:
        raise ValueError(f"shrinkage is above 0 and at most 1, not {shrinkage}")
    parts = by_class(features, labels)
    mean = np.stack([part.mean(0) for part in parts])
    own = np.stack([part.var(0) for part in parts])
    if not own.any():
        return np.full((len(parts), len(parts)), np.nan)
    variance = (1 - shrinkage) * own + shrinkage * own.mean()
    lines = [
        0.5 * (np.log(variance / v) + (v + (mean - m) ** 2) / variance - 1).sum(1)
        for m, v in zip(mean, variance, strict=True)
    ]
    return np.stack(lines)


def class_kl_neighbours(features: Vectors, labels: Labels, *, k: int = 5) -> Matrix:
    """KL(P_c || P_d) from distances to the k-th nearest neighbours, in nats; not symmetric.

    Estimator of Wang, Kulkarni and Verdu (2009, IEEE Transactions on Information Theory 55); the
    diagonal is 0. It assumes no shape, but is far from converged in many dimensions, falls short
    where P_c reaches far beyond P_d, and may be negative. Distances that are rounding count as the
    smallest that is not.

    Raises:
        ValueError: if a class has no more than `k` images.
    """
    parts = by_class(_centred(features), labels)
    if min(map(len, parts)) <= k:
        raise ValueError(f"the {k}-th neighbour needs more than {k} images of every class")
    size = np.sqrt(np.mean([(part**2).sum(1).mean() for part in parts]))
    least = max(_RESOLUTION * float(size), np.finfo(float).tiny)
    # Among its own class an image is its own nearest neighbour.
    own = [_nearest(part, part, k + 1, least) for part in parts]
    found = np.zeros((len(parts), len(parts)))
    for c, d in itertools.permutations(range(len(parts)), 2):
        ratios = _nearest(parts[c], parts[d], k, least) / own[c]
        sizes = len(parts[d]) / (len(parts[c]) - 1)
        found[c, d] = features.shape[1] * np.log(ratios).mean() + np.log(sizes)
    return found


MEASURES: Final[Mapping[str, Measure]] = {
    "cosine": class_cosines,
    "euclidean": class_distances,
    "wasserstein": class_wasserstein,
    "wasserstein_sliced": class_wasserstein_sliced,
    "kl": class_kl,
    "kl_neighbours": class_kl_neighbours,
}
"""Every measure, with its usual settings, by its name in tables."""


def _unit(vectors: Matrix) -> Matrix:
    """Rows of length 1; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _centred(features: Vectors) -> Matrix:
    """Distances do not change, and their expansion into squares loses fewer digits."""
    exact = features.astype(np.float64)
    return exact - exact.mean(0)


def _distances(a: Matrix, b: Matrix) -> Matrix:
    """Euclidean distances (n, m), by |a|^2 + |b|^2 - 2ab; 0 of an image to itself."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if a is b:
        np.fill_diagonal(squares, 0.0)
    return np.sqrt(np.maximum(squares, 0.0))


def _symmetric(parts: Sequence[Matrix], of: Callable[[Matrix, Matrix], float]) -> Matrix:
    found = np.zeros((len(parts), len(parts)))
    for c, d in itertools.combinations_with_replacement(range(len(parts)), 2):
        found[c, d] = found[d, c] = of(parts[c], parts[d])
    return found


def _assignment(a: Matrix, b: Matrix) -> float:
    """Mean distance between partners, in the pairing for which it is least."""
    cost = _distances(a, b)
    return float(cost[linear_sum_assignment(cost)].mean())


def _samples(features: Vectors, labels: Labels, n: int, rng: np.random.Generator) -> list[Matrix]:
    """Equally many images of each class, (m, D) each."""
    parts = by_class(_centred(features), labels)
    m = min(n, *map(len, parts))
    return [part[rng.choice(len(part), m, replace=False)] for part in parts]


def _nearest(a: Matrix, b: Matrix, k: int, least: float) -> Matrix:
    """Distance from each image of `a` to its k-th nearest in `b`, (n,), not below `least`."""
    return np.maximum(np.partition(_distances(a, b), k - 1, axis=1)[:, k - 1], least)

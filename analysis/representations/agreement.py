"""How much two networks agree on the same images: class geometry, class means, whole spaces.

For EDD's Figures 6 and 7 (Moon and Cho, 2025, arXiv:2511.09871, appendix B), where the second
network is that of joint training.
"""

from __future__ import annotations

import numpy as np

from analysis.metrics import Matrix
from analysis.representations.class_measures import Labels, Vectors, centroids


def mean_difference(model: Matrix, joint: Matrix) -> float:
    """Mean of |model - joint| over the pairs of different classes of two matrices (C, C).

    EDD's Figure 6 shows a similarity relative to joint training, which it does not define; this and
    `correlation` are our reading. Differences are in the measure's unit: a network with larger
    features is farther from joint training by distance, but not by correlation.
    NaN with a single class.
    """
    differences = np.abs(_pairs(model) - _pairs(joint))
    return float(differences.mean()) if differences.size else float("nan")


def correlation(model: Matrix, joint: Matrix) -> float:
    """Pearson's correlation of two matrices (C, C) over the pairs of different classes.

    For a symmetric measure that is the upper triangle; otherwise both directions of a pair count.
    NaN with fewer than three classes, or where all pairs of one matrix are alike.
    """
    if len(model) < 3:
        return float("nan")
    ours, theirs = (values - values.mean() for values in (_pairs(model), _pairs(joint)))
    norm = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    if not norm > 0:
        return float("nan")
    return float(np.clip(ours @ theirs / norm, -1.0, 1.0))


def centroid_cosines(features: Vectors, joint: Vectors, labels: Labels) -> Matrix:
    """Cosine between each class's mean feature in two networks, (C,): EDD's Figure 7.

    It compares coordinates, which mean the same in both only as far as the networks share them:
    they should at least have started from the same weights. NaN if they have not equally many, and
    for a mean of zeros.

    Args:
        features: (N, D).
        joint: of the same images, (N, D').
        labels: (N,).
    """
    ours, theirs = centroids(features, labels), centroids(joint, labels)
    if ours.shape != theirs.shape:
        return np.full(len(ours), np.nan)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    blank = np.full(len(ours), np.nan)
    return np.divide((ours * theirs).sum(1), norms, out=blank, where=norms > 0)


def rotated_centroid_cosines(features: Vectors, joint: Vectors, labels: Labels) -> Matrix:
    """`centroid_cosines` after the rotation that brings the features closest to joint's, (C,).

    A companion that does not depend on the basis. The fewer images there are beside dimensions, the
    more any two networks can be made to agree.
    """
    return centroid_cosines(rotated(features, joint), joint, labels)


def rotated(features: Vectors, target: Vectors) -> Matrix:
    """The features (N, D) under the orthogonal map that brings them closest to (N, D'), (N, D').

    Orthogonal Procrustes problem (Schoenemann, 1966, Psychometrika 31), without a shift, since
    cosines depend on the origin. Between spaces of different size: the map with orthonormal rows or
    columns of the largest scalar product with the target.
    """
    ours = features.astype(np.float64)
    left, _, right = np.linalg.svd(ours.T @ target.astype(np.float64), full_matrices=False)
    return ours @ (left @ right)


def linear_cka(features: Vectors, other: Vectors) -> float:
    """Linear centred kernel alignment of (N, D) and (N, D') on the same images, from 0 to 1.

    Kornblith et al., 2019, arXiv:1905.00414, section 3; unchanged by rotations and by one scale for
    all features. NaN if one of them is constant.
    """
    x, y = (values - values.mean(0) for values in (features.astype(float), other.astype(float)))
    norm = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2 / norm) if norm > 0 else float("nan")


def _pairs(matrix: Matrix) -> Matrix:
    """The entries off the diagonal, (C (C - 1),)."""
    return matrix[~np.eye(len(matrix), dtype=bool)]

"""How far classes move away from where they were when first learned: EDD's Figure A.1.

Moon and Cho, 2025, arXiv:2511.09871, appendix B; in which space distances are taken is not stated
there. Default is that of the features; the other is one plane for all tasks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from analysis.metrics import Matrix
from analysis.representations.class_measures import Labels, Vectors, centroids

PERPLEXITY: Final = 30.0
COMPONENTS: Final = 50
"""Principal components left for t-SNE, as scikit-learn's manual advises."""


def centroid_displacement(features: Vectors, labels: Labels, first: Labels) -> Matrix:
    """Euclidean distance of each class's mean from where it was when first learned, (S, C).

    Args:
        features: of the same images at S stages, (S, N, D).
        labels: (N,).
        first: the stage at which each class was first known, (C,); the result is NaN before it.
    """
    means = np.stack([centroids(stage, labels) for stage in features])
    start = means[first, np.arange(len(first))]
    distances = np.linalg.norm(means - start, axis=-1)
    return np.where(np.arange(len(means))[:, None] >= first, distances, np.nan)


def shared_tsne(features: Vectors, *, seed: int = 0, perplexity: float = PERPLEXITY) -> Matrix:
    """Features of S stages (S, N, D) in one plane, (S, N, 2), by one t-SNE of all S N vectors.

    Planes of separate fits could not be compared. It starts from the principal components, so that
    `seed` matters little. One thread, so that the sums inside t-SNE always have the same order.

    Raises:
        ValueError: if there are no more vectors than `perplexity`.
    """
    stages, images, size = features.shape
    flat = features.reshape(stages * images, size).astype(np.float64)
    if len(flat) <= perplexity:
        raise ValueError(f"t-SNE of perplexity {perplexity:g} needs more than {len(flat)} vectors")
    components = min(COMPONENTS, *flat.shape)
    with threadpool_limits(1):
        reduced = PCA(components, svd_solver="covariance_eigh").fit_transform(flat)
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return plane.reshape(stages, images, 2).astype(np.float64)

"""The quadratic program of gradient episodic memory, in its dual form, on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


def solve_dual(gram: Array, products: Array, *, margin: float, ridge: float) -> Array:
    """The v >= `margin` that minimises 1/2 v^T (G G^T + ridge I) v + (G g)^T v; exact.

    With v = margin + u this is a least-squares problem in u >= 0, which the active-set algorithm
    of Lawson and Hanson (1974) solves in finitely many steps.

    Args:
        gram: G G^T, (k, k), where the k rows of G are gradients.
        products: G g, (k,), of those with the gradient g to be changed.
        margin: the lower bound of every component; at least 0.
        ridge: makes the solution unique; above 0.

    Returns:
        v (k,): the changed gradient is G^T v + g.
    """
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    # G G^T has no negative eigenvalues but for rounding.
    values = values.clip(min=0.0) + ridge
    roots = np.sqrt(values)
    root = roots[:, None] * vectors.T  # root^T root = G G^T + ridge I
    slope = root.T @ root.sum(1) * margin + products
    target = -(vectors.T @ slope) / roots
    shifted, _ = nnls(root, target, maxiter=100 * len(products))
    return margin + shifted

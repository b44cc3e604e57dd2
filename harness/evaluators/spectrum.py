"""How many directions the features fill: the eigenvalues of their covariance.

Of the features of the measured images of the tasks seen, centred, with N - 1 below the sum; in
float64. With the share p_i of each eigenvalue l_i in their sum:

- `effective_rank`: exp(-sum p_i log p_i) (Roy and Vetterli, EUSIPCO 2007; the singular values of a
  covariance are its eigenvalues);
- `participation_ratio`: (sum l_i)^2 / sum l_i^2;
- `dims_90`, `dims_95`, `dims_99`: how many of the largest hold this percentage of the variance.

Details `spectrum`, a row an eigenvalue, the largest first: `index` from 0, `eigenvalue`, `share`.
There are as many as the features have dimensions. Features that do not vary give nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.measure import Checkpoint, Details, Evaluator, Measurement, as_numpy
from harness.schema import ALL_TASKS

PERCENTAGES: Final = (90, 95, 99)

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Config:
    pass


class Spectrum(Evaluator):
    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement | Details]:
        known = checkpoint.task(checkpoint.split) <= checkpoint.after_task
        features = as_numpy(checkpoint.features(checkpoint.split)[known].float())
        values = eigenvalues(features)
        if not values.any():
            return
        for metric, value in summary(values):
            yield Measurement(ALL_TASKS, metric, value, len(features))
        share = values / values.sum()
        index = np.arange(len(values))
        yield Details("spectrum", {"index": index, "eigenvalue": values, "share": share})


def eigenvalues(features: npt.NDArray[np.floating]) -> Values:
    """Eigenvalues of the covariance of features (N, D), the largest first, (D,)."""
    count, dims = features.shape
    if count < 2:
        return np.zeros(dims)
    x = features.astype(np.float64)
    x -= x[:1]  # so that a feature that does not vary is exactly 0, and its mean as well
    x -= x.mean(0)
    # The larger of the two products has the eigenvalues of the smaller one, and zeros.
    product = x @ x.T if dims > count else x.T @ x
    found = np.linalg.eigvalsh(product / (count - 1))[::-1]
    padded = np.zeros(dims)
    padded[: len(found)] = found.clip(min=0)  # rounding may leave a zero below zero
    return padded


def summary(values: Values) -> Iterator[tuple[str, float]]:
    """The numbers that sum eigenvalues (D,) up, the largest of them first."""
    share = values / values.sum()
    filled = share[share > 0]
    yield "effective_rank", float(np.exp(-(filled * np.log(filled)).sum()))
    yield "participation_ratio", float(1 / np.square(share).sum())
    held = share.cumsum()
    for percentage in PERCENTAGES:
        # Nine shares of a tenth hold 90 %, in spite of binary floats.
        enough = held + 1e-9 >= percentage / 100
        yield f"dims_{percentage}", float(enough.argmax() + 1)


build = Spectrum

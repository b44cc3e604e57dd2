"""k-nearest-neighbour probe on frozen features: Euclidean, uniform weights, standardised features.

The reference set is the training images of all classes, past and future, as in CLA (CoLLAs 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.probes import ScikitProbe


@dataclass(frozen=True, slots=True)
class Config:
    neighbours: int = 50  # CLA's released code

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {self.neighbours}")


class KNNProbe(ScikitProbe):
    config: Config

    def estimator(self) -> object:
        return make_pipeline(StandardScaler(), KNeighborsClassifier(self.config.neighbours))


build = KNNProbe

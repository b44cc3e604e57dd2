"""Ridge probe on frozen features: scikit-learn's RidgeClassifier on standardised features.

Trained on the training images of all classes, past and future, as in CLA (CoLLAs 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.probes import ScikitProbe


@dataclass(frozen=True, slots=True)
class Config:
    alpha: float = 1.0  # scikit-learn's default, as in CLA's released code


class RidgeProbe(ScikitProbe):
    config: Config

    def estimator(self) -> object:
        return make_pipeline(StandardScaler(), RidgeClassifier(alpha=self.config.alpha))


build = RidgeProbe

"""What probes share: they are trained on features of all classes and measure every task."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.measure import Checkpoint, Evaluator, Measurement, accuracy_by_task


class Probe(Evaluator):
    """Fits on the training features of all classes, past and future; measures every task."""

    by_task: ClassVar[bool] = True

    @abc.abstractmethod
    def guesses(self, checkpoint: Checkpoint) -> Tensor:
        """Guessed labels of the measured images, int64 (N,)."""

    def evaluate(self, checkpoint: Checkpoint) -> Iterator[Measurement]:
        labels, task = checkpoint.labels(checkpoint.split), checkpoint.task(checkpoint.split)
        hits = self.guesses(checkpoint).to(labels.device) == labels
        accuracies = accuracy_by_task(hits, task, len(checkpoint.scenario.tasks))
        for on_task, (value, n) in enumerate(accuracies):
            yield Measurement(on_task, "accuracy", value, n)


class ScikitProbe(Probe):
    """A probe by a scikit-learn estimator without randomness."""

    @abc.abstractmethod
    def estimator(self) -> Any:  # noqa: ANN401 - scikit-learn is not typed
        """An unfitted estimator."""

    def guesses(self, checkpoint: Checkpoint) -> Tensor:
        labels = checkpoint.labels("train").cpu().numpy()
        model = self.estimator().fit(checkpoint.features("train").cpu().numpy(), labels)
        return torch.from_numpy(model.predict(checkpoint.features(checkpoint.split).cpu().numpy()))

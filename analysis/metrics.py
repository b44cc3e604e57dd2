"""Continual-learning metrics as pure functions of the accuracy matrix A[after_task, on_task].

Every function takes `a` of shape (..., T, T), accuracies as fractions, NaN where nothing was
measured, and returns one number a matrix: a scalar for (T, T), shape (...) for a stack of trials.
A number that needs an entry that is missing is NaN, and so is a mean over no tasks.
The decorator `metric` gives a function the short name that tables and captions use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Score = np.float64 | Matrix


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's short name, its formula for captions, and what it is computed from.

    `needs` names what the function takes after `a`: `before`, `n` or `samples`, shape (..., T).
    """

    name: str
    formula: str
    function: Callable[..., Score]
    needs: tuple[str, ...]
    higher_is_better: bool

    def __call__(self, a: Matrix, inputs: Mapping[str, Matrix]) -> Score:
        return self.function(a, *(inputs[name] for name in self.needs))


METRICS: Final[dict[str, Metric]] = {}
"""Every metric of this file by its short name, in the order of definition."""

_F = TypeVar("_F", bound=Callable[..., Score])


def metric(
    name: str, formula: str, *, needs: tuple[str, ...] = (), higher_is_better: bool = True
) -> Callable[[_F], _F]:
    """Give a function its short name and the formula that captions print."""

    def register(function: _F) -> _F:
        METRICS[name] = Metric(name, formula, function, needs, higher_is_better)
        return function

    return register


def _mean(values: Matrix) -> Score:
    """Mean over the last axis; NaN if that is empty."""
    return values.mean(-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)[()]


def _diagonal(a: Matrix, *, offset: int = 0) -> Matrix:
    return np.diagonal(a, offset, axis1=-2, axis2=-1)


def _measured_since_learned(a: Matrix) -> Matrix:
    """`a` with -inf where the task was not learned yet, so that a maximum passes over it."""
    return np.where(np.tri(a.shape[-1], dtype=bool), a, -np.inf)


def _share_lost(before: Matrix, after: Matrix) -> Score:
    """Mean over tasks of (before - after) / before, both (..., T); NaN where one is before 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return _mean(np.where(before > 0, (before - after) / before, np.nan))


def accuracy_curve(a: Matrix, n: Matrix | None = None) -> Matrix:
    """Accuracy on the tasks seen, after each task: (..., T); k holds the mean over i≤k of A[k,i].

    With `n` (..., T), the test images of each task, the mean is over images instead of tasks.
    """
    seen = np.tri(a.shape[-1], dtype=bool)
    weight = np.ones(a.shape[-1]) if n is None else n[..., None, :]
    total = np.where(seen, a * weight, 0.0).sum(-1)
    with np.errstate(invalid="ignore"):
        return total / np.where(seen, weight, 0.0).sum(-1)


@metric("CA", "mean over k of the mean over i≤k of A[k,i]")
def continual_accuracy(a: Matrix) -> Score:
    """Continual accuracy: mean over k of (mean over i≤k of A[k,i]).

    Also: average incremental accuracy (iCaRL, Rebuffi et al., 2017, arXiv:1611.07725, PyCIL).
    """
    return accuracy_curve(a).mean(-1)


@metric("FA", "mean over i of A[T-1,i]")
def final_accuracy(a: Matrix) -> Score:
    """Final accuracy: mean over i of A[T-1,i].

    Also: ACC (Lopez-Paz & Ranzato, 2017, arXiv:1706.08840), average accuracy, AvgAcc.
    """
    return a[..., -1, :].mean(-1)


@metric("CA_all", "mean of the whole of A")
def continual_accuracy_all(a: Matrix) -> Score:
    """Mean of the whole matrix, unseen tasks included: (1/T^2) sum over k and i of A[k,i].

    Also: "Avg. Acc." of probes on all classes (CLA, CoLLAs 2025) when tasks are of equal size.
    """
    return a.mean((-2, -1))


@metric("CA_weighted", "mean over k of the accuracy on all test images of tasks i≤k", needs=("n",))
def continual_accuracy_weighted(a: Matrix, n: Matrix) -> Score:
    """Mean over k of (sum over i≤k of n[i] A[k,i]) / (sum over i≤k of n[i]), `n` (..., T) images.

    PyCIL's average incremental accuracy, which pools the test images; CA when all n are equal.
    """
    return accuracy_curve(a, n).mean(-1)


@metric("FA_weighted", "accuracy after the last task on all test images", needs=("n",))
def final_accuracy_weighted(a: Matrix, n: Matrix) -> Score:
    """(sum over i of n[i] A[T-1,i]) / (sum over i of n[i]), `n` (..., T) test images of each task.

    Also: accuracy on the pooled test set; "last accuracy" of PyCIL.
    """
    with np.errstate(invalid="ignore"):
        return (a[..., -1, :] * n).sum(-1) / n.sum(-1)


@metric(
    "forgetting",
    "mean over i<T-1 of max over i≤k<T-1 of A[k,i], minus A[T-1,i]",
    higher_is_better=False,
)
def forgetting(a: Matrix) -> Score:
    """Mean over i<T-1 of (max over i≤k<T-1 of A[k,i] - A[T-1,i]); may be negative.

    Average forgetting of Chaudhry et al., 2018, arXiv:1801.10112.
    """
    best = _measured_since_learned(a)[..., :-1, :-1].max(-2, initial=-np.inf)
    return _mean(best - a[..., -1, :-1])


@metric(
    "forgetting_with_last",
    "mean over i<T-1 of max over k≥i of A[k,i], minus A[T-1,i]",
    higher_is_better=False,
)
def forgetting_with_last(a: Matrix) -> Score:
    """Mean over i<T-1 of (max over i≤k≤T-1 of A[k,i] - A[T-1,i]); never negative.

    The variant that PyCIL and Mammoth print (Mammoth: Buzzega et al., 2020, arXiv:2004.07211).
    """
    best = _measured_since_learned(a)[..., :, :-1].max(-2)
    return _mean(best - a[..., -1, :-1])


@metric("forgetting_first", "mean over i<T-1 of A[i,i] - A[T-1,i]", higher_is_better=False)
def forgetting_first(a: Matrix) -> Score:
    """Mean over i<T-1 of (A[i,i] - A[T-1,i]), first minus last; the negative of BWT.

    Avalanche's forgetting (Lomonaco et al., 2021, arXiv:2104.00405).
    """
    return _mean((_diagonal(a) - a[..., -1, :])[..., :-1])


@metric("F_first", "mean over all i of A[i,i] - A[T-1,i]", higher_is_better=False)
def forgetting_first_all(a: Matrix) -> Score:
    """Mean over all T tasks of (A[i,i] - A[T-1,i]): the last task counts, with 0.

    F_first of the probe evaluations of CLA (CoLLAs 2025) and CLIMB.
    """
    return (_diagonal(a) - a[..., -1, :]).mean(-1)


@metric(
    "F_max", "mean over all i of max over k≥i of A[k,i], minus A[T-1,i]", higher_is_better=False
)
def forgetting_max_all(a: Matrix) -> Score:
    """Mean over all T tasks of (max over k≥i of A[k,i] - A[T-1,i]): the last counts, with 0.

    F_max of the probe evaluations of CLA (CoLLAs 2025) and CLIMB.
    """
    return (_measured_since_learned(a).max(-2) - a[..., -1, :]).mean(-1)


@metric(
    "F_first_relative",
    "mean over all i of (A[i,i] - A[T-1,i]) / A[i,i]",
    higher_is_better=False,
)
def forgetting_first_relative(a: Matrix) -> Score:
    """Mean over all T tasks of (A[i,i] - A[T-1,i]) / A[i,i]; NaN if one of the A[i,i] is 0.

    F_first_relat of CLIMB's probe evaluation; as a fraction, which tables print in percent.
    """
    return _share_lost(_diagonal(a), a[..., -1, :])


@metric(
    "F_max_relative",
    "mean over all i of 1 - A[T-1,i] / (max over k≥i of A[k,i])",
    higher_is_better=False,
)
def forgetting_max_relative(a: Matrix) -> Score:
    """Mean over all T tasks of (best - A[T-1,i]) / best, best = max over k≥i of A[k,i].

    F_max_relat of CLIMB's probe evaluation, as a fraction; NaN if a task was never above 0.
    """
    return _share_lost(_measured_since_learned(a).max(-2), a[..., -1, :])


@metric("BWT", "mean over i<T-1 of A[T-1,i] - A[i,i]")
def backward_transfer(a: Matrix) -> Score:
    """Mean over i<T-1 of (A[T-1,i] - A[i,i]) (Lopez-Paz & Ranzato, 2017, arXiv:1706.08840)."""
    return -forgetting_first(a)


@metric("FWT", "mean over i≥1 of A[i-1,i] - before[i]", needs=("before",))
def forward_transfer(a: Matrix, before: Matrix) -> Score:
    """Mean over i≥1 of (A[i-1,i] - before[i]) (Lopez-Paz & Ranzato, 2017, arXiv:1706.08840).

    `before` (..., T) is the accuracy of the network with its initial weights.
    """
    return _mean(_diagonal(a, offset=1) - before[..., 1:])


@metric("future_accuracy", "mean over k<T-1 of the mean over i>k of A[k,i]")
def future_accuracy(a: Matrix) -> Score:
    """Mean over k<T-1 of (mean over i>k of A[k,i]): accuracy on tasks not yet seen.

    "FT" in the logs of the probe evaluations of CLA (CoLLAs 2025) and CLIMB.
    """
    future = ~np.tri(a.shape[-1], dtype=bool)
    total = np.where(future, a, 0.0).sum(-1)[..., :-1]
    return _mean(total / np.arange(a.shape[-1] - 1, 0, -1))


@metric("learning_accuracy", "mean over i of A[i,i]")
def learning_accuracy(a: Matrix) -> Score:
    """Mean over i of A[i,i]: how well each task is learned (Riemer et al., 2019, arXiv:1810.11910).

    DualNet (Pham et al., 2021, arXiv:2110.00175) reports it beside forgetting; CLEAR (Lin et al.,
    2021, arXiv:2201.06289) calls it in-domain accuracy.
    """
    return _diagonal(a).mean(-1)


@metric("plasticity", "A[T-1,T-1]")
def plasticity(a: Matrix) -> Score:
    """A[T-1,T-1]: accuracy on the newest task at the end (BrainCL, arXiv:2504.14727)."""
    return a[..., -1, -1]


@metric("stability", "mean over i<T-1 of A[T-1,i]")
def stability(a: Matrix) -> Score:
    """Mean over i<T-1 of A[T-1,i]: accuracy on the old tasks (BrainCL, arXiv:2504.14727)."""
    return _mean(a[..., -1, :-1])


@metric("next_domain", "mean over k<T-1 of A[k,k+1]")
def next_domain_accuracy(a: Matrix) -> Score:
    """Mean over k<T-1 of A[k,k+1], on the task to come (CLEAR, arXiv:2201.06289)."""
    return _mean(_diagonal(a, offset=1))


@metric("CLEAR_accuracy", "mean of all A[k,i] with i≤k")
def clear_accuracy(a: Matrix) -> Score:
    """Mean of all entries i≤k, each with the same weight, unlike CA (CLEAR, arXiv:2201.06289)."""
    return _mean(a[..., np.tri(a.shape[-1], dtype=bool)])


@metric("CLEAR_BWT", "mean of all A[k,i] with i<k")
def clear_backward_transfer(a: Matrix) -> Score:
    """Mean of all entries i<k, an accuracy and no difference (CLEAR, arXiv:2201.06289)."""
    return _mean(a[..., np.tri(a.shape[-1], k=-1, dtype=bool)])


@metric("CLEAR_FWT", "mean of all A[k,i] with i>k")
def clear_forward_transfer(a: Matrix) -> Score:
    """Mean of all entries i>k, an accuracy and no difference (CLEAR, arXiv:2201.06289)."""
    return _mean(a[..., ~np.tri(a.shape[-1], dtype=bool)])


@metric("any_time", "mean over training images of the accuracy on tasks seen", needs=("samples",))
def any_time_accuracy(a: Matrix, samples: Matrix) -> Score:
    """Area under the curve of accuracy on tasks seen over images seen, divided by all images.

    `samples` (..., T) counts the images drawn for training until the end of each task. Measured at
    task ends, so each task weighs as many images as it drew; CA when tasks are of equal length.
    Also: A_AUC (Koh et al., 2022, arXiv:2110.10031), average anytime accuracy.
    """
    drawn = np.diff(samples, axis=-1, prepend=0.0)
    with np.errstate(invalid="ignore"):
        return (accuracy_curve(a) * drawn).sum(-1) / samples[..., -1]

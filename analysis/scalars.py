"""Single numbers of a finished trial, as columns of tables beside those computed from accuracies.

Evaluators store them after every task or after the last; a table shows those after the last: what a
method costs, how it stands corrupted and foreign images, how fair it is to its classes. The
definitions are those of the evaluators in `harness/evaluators/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd


@dataclass(frozen=True, slots=True)
class Scalar:
    """A column and the stored numbers that it is made of.

    Attributes:
        name: its short name.
        formula: its definition, for captions.
        evaluator: who measures it, and under which `metric`.
        metric: see there.
        scale: from stored to shown.
        higher_is_better: None if neither is.
        conditions: of the rows that count; None is the row without one.
        reduce: what becomes of several rows: of tasks a mean, of kinds of memory a sum. A sum of
            no rows is 0 where the evaluator measured at all.
        column: of the rows, which holds the number.
    """

    name: str
    formula: str
    evaluator: str
    metric: str
    scale: float = 1.0
    higher_is_better: bool | None = None
    conditions: tuple[str | None, ...] = (None,)
    reduce: Literal["mean", "sum"] = "mean"
    column: Literal["value", "samples_seen"] = "value"


_MIB: Final = 2.0**-20
_PERCENT: Final = 100.0
_STORED: Final = ("exemplars", "cues", "extra parameters")
"""What BrainCL (arXiv:2504.14727, Table 1) counts as extra memory: neither the Fisher information
nor the teacher that regularisation keeps, and of cues their payload."""

SCALARS: Final = {
    scalar.name: scalar
    for scalar in (
        Scalar(
            "held_MB",
            "MB that the method holds at the end beside the network that finetuning needs",
            "cost",
            "method_memory_bytes",
            1e-6,
        ),
        Scalar(
            "held_MiB",
            "MiB that the method holds at the end beside the network that finetuning needs",
            "cost",
            "method_memory_bytes",
            _MIB,
        ),
        Scalar(
            "extra_MiB",
            "MiB of exemplars, cues and extra networks at the end",
            "cost",
            "method_memory_bytes",
            _MIB,
            conditions=_STORED,
            reduce="sum",
        ),
        Scalar(
            "parameters_M",
            "millions of parameters in training at the end",
            "cost",
            "parameters",
            1e-6,
        ),
        Scalar(
            "images_k",
            "thousands of images drawn for training in all, replayed ones included",
            "cost",
            "parameters",
            1e-3,
            column="samples_seen",
        ),
        Scalar("train_s", "seconds of training in all", "cost", "train_seconds"),
        Scalar(
            "epoch_s",
            "seconds of an epoch of the last task, its first epoch left out",
            "cost",
            "epoch_seconds",
        ),
        Scalar("peak_MB", "MB in use at the peak", "cost", "peak_memory_bytes", 1e-6),
        Scalar(
            "FA_softmax",
            "FA of the softmax head, which stands beside another rule",
            "classifier_softmax",
            "accuracy",
            _PERCENT,
            True,
        ),
        Scalar(
            "mCA",
            "mean accuracy over corruptions and severities",
            "corruption",
            "mean_corruption_accuracy",
            _PERCENT,
            True,
        ),
        Scalar(
            "mCA_drop",
            "accuracy on the same images uncorrupted, minus mCA",
            "corruption",
            "relative_drop",
            _PERCENT,
            False,
        ),
        Scalar(
            "AUROC",
            "area under the ROC curve of the largest softmax probability, own images against "
            "foreign ones",
            "ood",
            "auroc",
            _PERCENT,
            True,
        ),
        Scalar(
            "AUPR",
            "area under precision and recall, foreign images as positives",
            "ood",
            "aupr",
            _PERCENT,
            True,
        ),
        Scalar(
            "FPR95",
            "share of foreign images as confident as 95 % of the own ones",
            "ood",
            "fpr95",
            _PERCENT,
            False,
        ),
        *(
            Scalar(
                name,
                f"accuracy on classes with {words} training images",
                "shots",
                "accuracy",
                _PERCENT,
                True,
                (name,),
            )
            for name, words in (("many", "many"), ("medium", "a medium number of"), ("few", "few"))
        ),
        Scalar(
            "class_std",
            "standard deviation of the accuracies of classes",
            "fairness",
            "class_std",
            _PERCENT,
            False,
        ),
        Scalar(
            "worst_tenth",
            "mean accuracy of the worst tenth of the classes",
            "fairness",
            "worst_tenth",
            _PERCENT,
            True,
        ),
        Scalar(
            "bias_to_last",
            "share of images of earlier tasks taken for classes of the last",
            "confusion",
            "bias_to_last",
            _PERCENT,
            False,
        ),
        Scalar("effective_rank", "effective rank of the features", "spectrum", "effective_rank"),
        Scalar(
            "silhouette",
            "silhouette of the classes among the features",
            "embedding",
            "silhouette",
            1.0,
            True,
        ),
        Scalar(
            "bpp", "bits per pixel of recalled images, mean over tasks", "recall", "bits_per_pixel"
        ),
        Scalar(
            "recall_PSNR",
            "peak signal-to-noise ratio of recalled images in dB, mean over tasks",
            "recall",
            "recall_psnr",
        ),
        Scalar(
            "recall_accuracy",
            "accuracy on recalled training images, mean over tasks",
            "recall",
            "recall_accuracy",
            _PERCENT,
        ),
    )
}
"""Every scalar by its short name."""


def final_scalars(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The named scalars as stored, after the last task; one row a trial, indexed by its id."""
    last = rows[(rows["after_task"] == rows["num_tasks"] - 1).to_numpy()]
    columns = {name: _values(last, SCALARS[name]) for name in names}
    trials = pd.Index(last["trial_id"].unique(), dtype=object)
    return pd.DataFrame(columns, index=trials)


def _values(last: pd.DataFrame, scalar: Scalar) -> pd.Series[float]:
    """One value a trial that measured it."""
    chosen = (last["evaluator"] == scalar.evaluator) & (last["metric"] == scalar.metric)
    rows = last[chosen.to_numpy()].astype({"trial_id": object, "condition": object})
    condition = rows["condition"].where(rows["condition"].notna(), None)
    wanted = condition.isin([one for one in scalar.conditions if one is not None])
    if None in scalar.conditions:
        wanted |= condition.isna()
    grouped = rows[wanted].groupby("trial_id")[scalar.column]
    if scalar.reduce == "mean":
        return grouped.mean()
    return grouped.sum().reindex(rows["trial_id"].unique(), fill_value=0.0)

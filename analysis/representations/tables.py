"""The analyses of a whole store, in long form: one number a row, beside the trial it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from analysis.metrics import Matrix
from analysis.representations.agreement import (
    centroid_cosines,
    correlation,
    linear_cka,
    mean_difference,
    rotated_centroid_cosines,
)
from analysis.representations.class_measures import MEASURES
from analysis.representations.drift import centroid_displacement, shared_tsne
from analysis.representations.stored import (
    NOWHERE,
    Recorded,
    Where,
    beside_joint,
    check_same_images,
    recorded,
    with_features,
)
from analysis.trial_files import StoreError

IDENTITY: Final = (
    *("suite", "protocol", "label", "method", "dataset", "num_tasks", "distribution"),
    *("seed", "trial_id"),
)
"""The columns that every table begins with."""

USUAL_MEASURES: Final = ("cosine", "euclidean", "wasserstein", "kl")
"""EDD's four, in the form that is the default here."""

CKA: Final = "cka"

_BY_CLASS: Final = {"cosine": centroid_cosines, "rotated_cosine": rotated_centroid_cosines}

_SPACES: Final = ("features", "tsne")

ALL_CLASSES: Final = -1
"""`class` of a number that belongs to all classes seen together."""

TSNE_IMAGES: Final = 200
"""Images a class in one t-SNE; our choice: ten classes, five tasks then take a minute a trial."""


def compare(
    root: Path,
    suite: str | None = None,
    *,
    measures: Sequence[str] = USUAL_MEASURES,
    where: Where = NOWHERE,
) -> pd.DataFrame:
    """Class geometry after the last task, beside that of joint training: EDD's Figure 6.

    One row a trial and measure: `IDENTITY`, `joint` (its trial), `metric`, `difference` and
    `correlation` (`analysis.representations.agreement`), both over the pairs of classes.
    Trials without a joint trial beside them are left out.

    Args:
        root: the store.
        suite: whose trials; None: of all suites.
        measures: names of `class_measures.MEASURES`, with their usual settings.
        where: values of columns of `analysis.load.trials` that a trial must have.

    Raises:
        StoreError: if no trial kept features, or none of them has a joint trial beside it.
        ValueError: if there is no such measure.
    """
    for name in measures:
        if name not in MEASURES:
            raise ValueError(f"unknown measure '{name}'; there are {', '.join(MEASURES)}")
    lines: list[dict[str, Any]] = []
    for joint_id, rows in beside_joint(root, suite, where):
        last = int(rows["num_tasks"].iloc[0]) - 1
        joint = recorded(root, joint_id, last)
        theirs = _geometry(joint, measures)
        for row in rows.to_dict("records"):
            ours = recorded(root, str(row["trial_id"]), last)
            check_same_images(ours, joint)
            for name, matrix in _geometry(ours, measures).items():
                found = {
                    "difference": mean_difference(matrix, theirs[name]),
                    "correlation": correlation(matrix, theirs[name]),
                }
                lines.append({**_identity(row), "joint": joint_id, "metric": name, **found})
    return pd.DataFrame(lines)


def alignment(root: Path, suite: str | None = None, *, where: Where = NOWHERE) -> pd.DataFrame:
    """Agreement with joint training on every class after every task: EDD's Figure 7.

    One row a trial, task, metric and class seen by then: `IDENTITY`, `joint` (its trial),
    `after_task`, `joint_after_task`, `metric`, `class`, `value`. Metrics are `cosine` (of class
    means, in the networks' own coordinates), `rotated_cosine` (after the best rotation, found on
    the images of classes seen) and `cka` (of those images; `class` is `ALL_CLASSES`).
    Joint training is taken after the same task, or after its last where it kept no other
    (`stages: last`); `joint_after_task` says which.

    Raises:
        StoreError: as in `compare`.
    """
    lines: list[dict[str, Any]] = []
    for joint_id, rows in beside_joint(root, suite, where):
        joint = recorded(root, joint_id)
        for row in rows.to_dict("records"):
            ours = recorded(root, str(row["trial_id"]))
            check_same_images(ours, joint)
            who = {**_identity(row), "joint": joint_id}
            lines += [{**who, **found} for found in _agreement(ours, joint)]
    return pd.DataFrame(lines)


def displacement(
    root: Path,
    suite: str | None = None,
    *,
    space: Literal["features", "tsne"] = "features",
    images: int = TSNE_IMAGES,
    seed: int = 0,
    where: Where = NOWHERE,
) -> pd.DataFrame:
    """How far each class's mean is from where it was when first learned: EDD's Figure A.1.

    One row a trial, task and class seen by then: `IDENTITY`, `space`, `after_task`, `class`,
    `first_task` (which brought it) and `distance`, Euclidean. Trials that kept features of
    the last task alone are left out.

    Args:
        root: the store.
        suite: whose trials; None: of all suites.
        space: of the features themselves, or the plane of one t-SNE of all tasks of a trial.
        images: how many of each class t-SNE takes at most.
        seed: of their choice and of t-SNE; the trial's own has nothing to do with it.
        where: as in `compare`.

    Raises:
        StoreError: if no trial kept features after every task.
        ValueError: if there is no such space.
    """
    if space not in _SPACES:
        raise ValueError(f"unknown space '{space}'; there are {', '.join(_SPACES)}")
    lines: list[dict[str, Any]] = []
    for row in with_features(root, suite, where).to_dict("records"):
        found = recorded(root, str(row["trial_id"]))
        if len(found.after_task) == int(row["num_tasks"]):
            placed = in_plane(found, images, seed) if space == "tsne" else found
            lines += [{**_identity(row), "space": space, **line} for line in _distances(placed)]
    if not lines:
        raise StoreError(f"{root}: no trial has records of features after every task")
    return pd.DataFrame(lines)


def _identity(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row[name] for name in IDENTITY}


def _geometry(found: Recorded, measures: Sequence[str]) -> dict[str, Matrix]:
    """The named measures between classes, (C, C) each, after the last task."""
    return {name: MEASURES[name](found.vectors[-1], found.label) for name in measures}


def _agreement(ours: Recorded, joint: Recorded) -> Iterator[dict[str, Any]]:
    """The numbers of `alignment` for one trial."""
    for after_task, vectors in zip(ours.after_task.tolist(), ours.vectors, strict=True):
        stage = joint.stage(after_task)
        seen = ours.classes[ours.first_task <= after_task]
        images = np.isin(ours.label, seen)
        pair = vectors[images], joint.vectors[stage][images]
        when = {"after_task": after_task, "joint_after_task": int(joint.after_task[stage])}
        for name, measure in _BY_CLASS.items():
            for one, value in zip(seen.tolist(), measure(*pair, ours.label[images]), strict=True):
                yield {**when, "metric": name, "class": one, "value": float(value)}
        yield {**when, "metric": CKA, "class": ALL_CLASSES, "value": linear_cka(*pair)}


def _distances(found: Recorded) -> Iterator[dict[str, Any]]:
    """The numbers of `displacement` for one trial, which kept features after every task."""
    distances = centroid_displacement(found.vectors, found.label, found.first_task)
    for (stage, place), distance in np.ndenumerate(distances):
        if stage >= found.first_task[place]:
            yield {
                "after_task": stage,
                "class": int(found.classes[place]),
                "first_task": int(found.first_task[place]),
                "distance": float(distance),
            }


def in_plane(found: Recorded, images: int, seed: int) -> Recorded:
    """At most so many images of each class, with their places in one t-SNE as vectors."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(found.label == one) for one in found.classes]
    some = [rng.choice(row, min(images, len(row)), replace=False) for row in rows]
    chosen = np.sort(np.concatenate(some))
    plane = shared_tsne(found.vectors[:, chosen], seed=seed)
    return replace(found, image=found.image[chosen], label=found.label[chosen], vectors=plane)

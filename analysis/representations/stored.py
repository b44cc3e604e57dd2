"""The features that trials of a store kept, and the joint training each is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.aggregate import distinct_labels
from analysis.load import DONE, trials
from analysis.records import FEATURES, features
from analysis.representations.class_measures import Vectors
from analysis.trial_files import StoreError
from harness.schema import RECORDS

JOINT: Final = "joint"
"""The method that others are compared with, in trials that are references."""

SETTING: Final = ("protocol", "dataset", "num_tasks", "distribution", "seed")
"""What a trial and its joint training have in common."""

CLOSER: Final = ("suite", "backbone")
"""What decides between several joint trials, in this order."""

SUITE: Final = "edd_representations"
"""The suite that keeps features of learners and of joint training."""

Numbers = npt.NDArray[np.int64]
Where = Mapping[str, object]
"""Values of columns of `analysis.load.trials`."""

NOWHERE: Final[Where] = {}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One trial's features of the same N images after S of its tasks.

    `folder` they came from; `after_task` (S,) ascending; `image` (N,) the image's row in its data
    set; `label` (N,) its class; `classes` (C,) those that occur, ascending; `first_task` (C,) the
    task that brings each; `vectors` (S, N, D).
    """

    folder: Path
    after_task: Numbers
    image: Numbers
    label: Numbers
    classes: Numbers
    first_task: Numbers
    vectors: Vectors

    def stage(self, after_task: int) -> int:
        """The stage after this task, of those kept; the last one if that was not kept."""
        (found,) = np.nonzero(self.after_task == after_task)
        return int(found[0]) if len(found) else len(self.after_task) - 1


def recorded(root: Path, trial_id: str, after_task: int | None = None) -> Recorded:
    """What a trial kept, of one task or (None) of all.

    Raises:
        StoreError: if it kept nothing, not always the same images, or numbers that are not finite.
    """
    folder = _folder(root, trial_id)
    frame, vectors = features(root, trial_id, after_task)
    stages, counts = np.unique(frame["after_task"].to_numpy(np.int64), return_counts=True)
    if (counts != counts[0]).any():
        raise StoreError(f"{folder}: its files are of different images")
    image, label, task = (
        frame[name].to_numpy(np.int64).reshape(len(stages), -1)
        for name in ("image", "label", "task")
    )
    if (image != image[0]).any() or (label != label[0]).any():
        raise StoreError(f"{folder}: its files are of different images")
    if not np.isfinite(vectors).all():
        raise StoreError(f"{folder}: a feature is infinite or not a number")
    classes = np.unique(label[0])
    first = np.array([task[0][label[0] == one].min() for one in classes])
    stacked = vectors.reshape(*image.shape, vectors.shape[1])
    return Recorded(folder, stages, image[0], label[0], classes, first, stacked)


def with_features(root: Path, suite: str | None = None, where: Where = NOWHERE) -> pd.DataFrame:
    """The finished trials that kept features, of one suite or all: rows of `analysis.load.trials`.

    Labels tell trials apart as they do in tables; `backbone` is the protocol's. `where` keeps the
    trials whose columns have these values.

    Raises:
        StoreError: if there is no such suite, or no such trial.
    """
    wanted = trials(root)
    names = list(dict.fromkeys(wanted["suite"]))
    if suite is not None and suite not in names:
        raise StoreError(f"{root}: no suite '{suite}'; there are {', '.join(names) or 'none'}")
    backbones = [settings.get("protocol.backbone") for settings in wanted["settings"]]
    wanted = wanted.assign(label=distinct_labels(wanted), backbone=backbones)
    if suite is not None:
        wanted = wanted[wanted["suite"] == suite]
    for name, value in where.items():
        wanted = wanted[wanted[name] == value]
    done = wanted[wanted["state"] == DONE]
    kept = done[[_kept(root, str(trial_id)) for trial_id in done["trial_id"]]]
    if kept.empty:
        raise StoreError(
            f"{root}: no finished trial has records of features; "
            f"`records: [features]` asks for them, as in the suite {SUITE}"
        )
    return kept


def beside_joint(
    root: Path, suite: str | None = None, where: Where = NOWHERE
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each joint trial's id, and the rows of `with_features` that are compared with it.

    It has their data set, number of tasks, distribution, protocol and seed (`SETTING`); of several,
    the one of their suite or with their backbone counts (`CLOSER`). Trials whose joint training is
    not stored, or kept no features, are left out.

    Raises:
        StoreError: if there are no pairs, or several joint trials suit a trial equally well.
    """
    everything = with_features(root)
    is_joint = everything["reference"].astype(bool) & (everything["method"] == JOINT)
    joint: list[dict[Any, Any]] = everything[is_joint].to_dict("records")
    found = with_features(root, suite, where)
    found = found[~found["trial_id"].isin([one["trial_id"] for one in joint])]
    partners = [_joint_of(root, line, joint) for line in found.to_dict("records")]
    found = found.assign(joint=partners)
    found = found[found["joint"] != ""]
    if found.empty:
        raise StoreError(
            f"{root}: no trial with features has beside it a joint trial with features of the same "
            f"data set, num_tasks, distribution, protocol and seed; the suite {SUITE} makes both"
        )
    for name, part in found.groupby("joint", sort=False):
        yield str(name), part


def check_same_images(ours: Recorded, joint: Recorded) -> None:
    """Both must have measured the same images, under the same numbers of classes.

    Raises:
        StoreError: if they have not.
    """
    if not (np.array_equal(ours.image, joint.image) and np.array_equal(ours.label, joint.label)):
        raise StoreError(f"{joint.folder}: of other images or classes than {ours.folder}")


def _joint_of(root: Path, line: Mapping[Any, Any], joint: Sequence[Mapping[Any, Any]]) -> str:
    """The id of the joint trial for a line of `with_features`; empty if there is none."""
    found = [one for one in joint if all(one[key] == line[key] for key in SETTING)]
    for key in CLOSER:
        found = [one for one in found if one[key] == line[key]] or found
    names = sorted({str(one["trial_id"]) for one in found})
    if len(names) > 1:
        raise StoreError(
            f"{root}: trial {line['trial_id']} ({line['label']}) could be compared with "
            f"several joint trials: {', '.join(names)}"
        )
    return names[0] if names else ""


def _folder(root: Path, trial_id: str) -> Path:
    return root / RECORDS / trial_id / FEATURES


def _kept(root: Path, trial_id: str) -> bool:
    return any(_folder(root, trial_id).glob("after_task_*.parquet"))

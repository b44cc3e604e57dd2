"""How attention to the same images changes: maps after an image's own task and after the last.

BrainCL (arXiv:2504.14727) shows such maps; the two measures, and the share of 20 % of the pixels,
are our choice, as the paper prints no numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from analysis.load import DONE, trials
from analysis.metrics import Matrix
from analysis.records import last_records
from analysis.trial_files import StoreError

ATTENTION: Final = "attention"

TOP: Final = 0.2
"""Share of an image's pixels, those with the most attention, whose overlap is measured."""


def drift(root: Path, suite: str | None = None) -> pd.DataFrame:
    """One row an image of each trial that kept its maps after every task.

    Columns: `suite`, `protocol`, `label`, `dataset`, `num_tasks`, `seed`, `trial_id`; `task`,
    `image`, `class`; `cosine` and `overlap` of the map after that task and after the last
    (`cosines`, `overlaps`), both 1 for images of the last task.

    Raises:
        StoreError: if no trial kept maps after every task.
    """
    wanted = trials(root)
    wanted = wanted[wanted["state"] == DONE]
    if suite is not None:
        wanted = wanted[wanted["suite"] == suite]
    columns = ["suite", "protocol", "label", "dataset", "num_tasks", "seed", "trial_id"]
    parts = [
        found.assign(**{name: row[name] for name in columns})
        for row in wanted[columns].to_dict("records")
        if not (found := of_trial(root, str(row["trial_id"]), int(row["num_tasks"]))).empty
    ]
    if not parts:
        raise StoreError(f"{root}: no trial kept maps of the evaluator attention after every task")
    return pd.concat(parts, ignore_index=True)[[*columns, "task", "image", "class", *_MEASURES]]


def of_trial(root: Path, trial_id: str, num_tasks: int) -> pd.DataFrame:
    """The same for one trial; empty if it lacks the maps after some task."""
    stages = [last_records(root, trial_id, ATTENTION, after + 1) for after in range(num_tasks)]
    frames = [frame for frame in stages if frame is not None]
    if len(frames) < num_tasks:
        return pd.DataFrame()
    first = pd.concat([frame[frame["task"] == after] for after, frame in enumerate(frames)])
    pairs = first.merge(frames[-1], on="image", suffixes=("", "_last"), validate="one_to_one")
    before, after = (np.stack([*pairs[name]]).astype(float) for name in ("map", "map_last"))
    found = pairs[["task", "image", "label"]].rename(columns={"label": "class"})
    return found.assign(cosine=cosines(before, after), overlap=overlaps(before, after))


def cosines(first: Matrix, second: Matrix) -> Matrix:
    """Cosines (N,) of maps (N, P); 0 where one of the two is 0 everywhere, 1 where both are."""
    product = (first * second).sum(1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    with np.errstate(invalid="ignore"):
        found = np.where(norms > 0, product / norms, 0.0)
    return np.where(~first.any(1) & ~second.any(1), 1.0, found)


def overlaps(first: Matrix, second: Matrix, top: float = TOP) -> Matrix:
    """Intersection over union (N,) of the `top` share of pixels with the most attention.

    Args:
        first: maps (N, P); on ties the first pixels count.
        second: likewise, of the same images.
        top: share of the P pixels, at least one of them.
    """
    count = max(1, round(top * first.shape[1]))
    ours, theirs = (_best(maps, count) for maps in (first, second))
    return (ours & theirs).sum(1) / (ours | theirs).sum(1)


def _best(maps: Matrix, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(maps.shape, dtype=bool)
    order = np.argsort(-maps, axis=1, kind="stable")[:, :count]
    np.put_along_axis(mask, order, values=True, axis=1)
    return mask


_MEASURES: Final = ("cosine", "overlap")

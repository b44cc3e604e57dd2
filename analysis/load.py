"""Open a store of results: its rows as one tidy frame, and the state of every wanted trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from analysis.part_files import read_part, read_part_manifest
from analysis.searches import StudyFound, searched, studies
from analysis.summary import IDENTITY
from analysis.trial_files import Provenance, StoreError, read_manifest, read_trials, stored
from harness.schema import FAILURES, SUITES, TRIALS, part_folders

__all__ = ["Provenance", "Results", "StoreError", "load", "manifest", "read", "trials"]

DONE: Final = "done"
MISSING: Final = "missing"
FAILED: Final = "failed"
DIVERGED: Final = "diverged"

SUITE_SCHEMA: Final = 1
"""The newest version of suite files that this program reads."""

_TRIES: Final = 5
"""Of reading a store whose files are being merged meanwhile."""

_COLUMNS: Final = ("suite", *IDENTITY, "reference", "state", "failure", "message", "settings")


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Results:
    """One store, read once.

    `rows`: one measured number a row, as `load` gives; `trials`: one wanted trial a row, as
    `trials` gives; `provenance`: one stored trial an entry; `unwanted`: trials that are stored but
    that no suite wants any more; `metrics`: the columns of each table that a suite asks for;
    `studies`: what searches tried, whose trials are in `rows` and not in `trials`; `origins`: of
    suites that a search wrote, what it says of itself; `root`: its folder.
    """

    rows: pd.DataFrame
    trials: pd.DataFrame
    provenance: list[Provenance]
    unwanted: int
    metrics: Mapping[str, Sequence[Sequence[str]]]
    studies: Sequence[StudyFound]
    origins: Mapping[str, Mapping[str, Any]]
    root: Path

    def only(self, trials: pd.DataFrame) -> Results:
        """The same store with these wanted trials alone."""
        return replace(self, trials=trials.reset_index(drop=True))

    def provenance_of(self, trial_ids: Iterable[str]) -> list[Provenance]:
        """What made those of these trials that are stored."""
        wanted = set(trial_ids)
        return [line for line in self.provenance if line.trial_id in wanted]


def read(root: Path) -> Results:
    """Everything that tables, figures and reports need, with every file read once."""
    rows, provenance = _rows(root)
    found = studies(root)
    known = _trials(root, rows, provenance, searched(found))
    unwanted = {line.trial_id for line in provenance} - set(known["trial_id"]) - searched(found)
    asked = _asked(root)
    metrics, origins = _of(asked, "metrics", _tables), _of(asked, "search", dict)
    return Results(rows, known, provenance, len(unwanted), metrics, found, origins, root)


def load(root: Path) -> pd.DataFrame:
    """One row a measured number of all stored trials: the schema's columns, `group`, `primary`."""
    rows, _ = _rows(root)
    return rows


def manifest(root: Path, trial_id: str) -> dict[str, Any]:
    """The manifest of one stored trial: resolved settings, versions, host, times.

    Raises:
        StoreError: if it is not stored.
    """
    found = read_manifest(root, trial_id)
    for folder in part_folders(root) if found is None else ():
        found = found or read_part_manifest(folder, trial_id)
    if found is None:
        raise StoreError(f"{root}: no such trial is stored: {trial_id}")
    return found


def _rows(root: Path) -> tuple[pd.DataFrame, list[Provenance]]:
    """All rows, of every trial once, wherever they lie; and what made the trials."""
    for _ in range(_TRIES):
        # Files before parts: a part is there before the files that it replaces go.
        paths, folders = stored(root), part_folders(root)
        try:
            table, provenance = read_trials(paths)
            held = [(table.to_pandas(split_blocks=True, self_destruct=True), provenance)]
            del table
            held += [read_part(folder) for folder in folders]
        except FileNotFoundError:
            continue  # merged in the meantime
        places = [root / TRIALS, *folders]
        full = [pair for pair in zip(held, places, strict=True) if pair[0][1]]
        if len(full) > 1:
            return _merged(full)
        return full[0][0] if full else held[0]
    raise StoreError(f"{root}: its files go while they are read; try again later")


def _merged(
    held: Sequence[tuple[tuple[pd.DataFrame, list[Provenance]], Path]],
) -> tuple[pd.DataFrame, list[Provenance]]:
    """The rows of several places; trials that lie in more than one, once.

    Raises:
        StoreError: if two results of one trial differ.
    """
    known: dict[str, tuple[Provenance, Path]] = {}
    frames: list[pd.DataFrame] = []
    for (frame, provenance), place in held:
        double: set[str] = set()
        for line in provenance:
            first, where = known.setdefault(line.trial_id, (line, place))
            if first is not line:
                double.add(line.trial_id)
                if first.digest != line.digest:
                    raise StoreError(
                        f"two results of trial {line.trial_id} differ: one in {where}, "
                        f"one in {place}; remove the wrong one"
                    )
        frames.append(frame[~frame["trial_id"].isin(list(double)).to_numpy()] if double else frame)
    columns: dict[str, Any] = {}
    for name in frames[0].columns:
        pieces = [frame[name] for frame in frames]
        columns[name] = (
            union_categoricals(pieces)
            if isinstance(pieces[0].dtype, pd.CategoricalDtype)
            else np.concatenate([piece.to_numpy() for piece in pieces])
        )
    return pd.DataFrame(columns, copy=False), [line for line, _ in known.values()]


def trials(root: Path) -> pd.DataFrame:
    """One row a wanted trial and suite, in the suites' order.

    Columns: `suite`, who it is (`IDENTITY`), `state` (done, missing, failed, diverged), `failure`
    (its class) and `message` (its first line) where there was one, `settings` (a flat mapping),
    `reference` (whether the method is an upper reference, which is shown but not ranked).
    A stored trial whose suite has no suite file counts as wanted by the suite named in its rows.
    """
    return read(root).trials


def _trials(
    root: Path, rows: pd.DataFrame, provenance: Sequence[Provenance], of_searches: set[str]
) -> pd.DataFrame:
    made = {line.trial_id: line for line in provenance}
    suites = [_suite(path) for path in _json_files(root / SUITES)]
    wanted = [line for _, lines in suites for line in lines]
    strays = made.keys() - {line["trial_id"] for line in wanted} - of_searches
    found = _unlisted(rows, {name: made[name] for name in strays}, {name for name, _ in suites})
    failures = _failures(root)
    lines = [_with_state(line, made.keys(), failures) for line in (*wanted, *found)]
    frame = pd.DataFrame(lines, columns=pd.Index(_COLUMNS))
    return frame.drop_duplicates(["suite", "trial_id", "label"], ignore_index=True)


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith((".", "_")))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path}: not a JSON object")
    return found


def _failures(root: Path) -> dict[str, dict[str, Any]]:
    """The failure notes by trial; a damaged one says no more than that the trial is missing."""
    found: dict[str, dict[str, Any]] = {}
    for path in _json_files(root / FAILURES):
        with suppress(StoreError):
            found[path.stem] = _json(path)
    return found


def _suite(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """A suite's name and the trials it wants."""
    found = _json(path)
    version = found.get("schema")
    if not isinstance(version, int) or version > SUITE_SCHEMA:
        raise StoreError(f"{path}: schema {version}, and this program reads up to {SUITE_SCHEMA}")
    name = str(found.get("suite", path.stem))
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(found.get("trials", [])):
        absent = [key for key in (*IDENTITY, "settings") if key not in line]
        if absent:
            raise StoreError(f"{path}: trial {number} lacks '{absent[0]}'")
        known = {key: line[key] for key in (*IDENTITY, "settings")}
        lines.append({"suite": name, "reference": bool(line.get("reference")), **known})
    return name, lines


def _asked(root: Path) -> list[dict[str, Any]]:
    return [_json(path) for path in _json_files(root / SUITES)]


def _of(suites: Sequence[Mapping[str, Any]], key: str, read: Callable[[Any], _T]) -> dict[str, _T]:
    """What each suite file says under a key, if it does."""
    return {str(one["suite"]): read(one[key]) for one in suites if one.get(key)}


def _tables(metrics: list[Any]) -> list[list[str]]:
    """The columns of each table: a list of names is one table, a list of such lists several."""
    return [metrics] if isinstance(metrics[0], str) else metrics


def _unlisted(
    rows: pd.DataFrame, strays: Mapping[str, Provenance], suites: set[str]
) -> list[dict[str, Any]]:
    """The stored trials that no suite file lists, unless their suite has one."""
    first = rows[rows["trial_id"].isin(list(strays)).to_numpy()].drop_duplicates("trial_id")
    first = first[~first["suite"].isin(list(suites)).to_numpy()]
    first = first.astype({"label": str, "dataset": str, "suite": str, "protocol": str})
    first = first.sort_values(["suite", "protocol", "dataset", "num_tasks", "label", "seed"])
    lines: list[dict[str, Any]] = []
    for line in first[["suite", *IDENTITY]].to_dict("records"):
        held = json.loads(strays[str(line["trial_id"])].manifest)
        known = {str(key): value for key, value in line.items()}
        extra = {"reference": bool(held.get("reference")), "settings": _settings(held)}
        lines.append({**known, **extra})
    return lines


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's settings as a suite file gives them: `method.omega`, `protocol.lr`."""
    spec: Mapping[str, Any] = found.get("spec", {})
    parts: dict[str, Mapping[str, Any]] = {
        "method": spec.get("method", {}).get("settings", {}),
        "dataset": spec.get("dataset", {}).get("settings", {}),
        "protocol": spec.get("protocol", {}),
    }
    flat = {f"{part}.{key}": value for part, held in parts.items() for key, value in held.items()}
    return {**flat, "class_order": spec["class_order"]} if "class_order" in spec else flat


def _with_state(
    line: Mapping[str, Any], done: Container[str], failures: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if line["trial_id"] in done:
        return {**line, "state": DONE, "failure": "", "message": ""}
    failure = failures.get(str(line["trial_id"]))
    if failure is None:
        return {**line, "state": MISSING, "failure": "", "message": ""}
    kind = str(failure.get("class", FAILED))
    message = str(failure.get("message", "")).strip()
    return {
        **line,
        "state": DIVERGED if kind == DIVERGED else FAILED,
        "failure": kind,
        "message": message.splitlines()[0] if message else "",
    }

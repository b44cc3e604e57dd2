"""Where a figure comes from, inside its file: the store's digest and the query that drew it.

`verify` draws it again and says whether the store still gives the same picture, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from analysis.figures.catalogue import panel_figures
from analysis.figures.panels import panels
from analysis.figures.searches import STUDY_FIGURES
from analysis.figures.style import save
from analysis.figures.suites import SUITE_FIGURES, ranking
from analysis.load import Results, read
from analysis.searches import StudyFound
from analysis.trial_files import Provenance, StoreError

FORMAT: Final = "engram figure 1"
"""Stands first in the metadata; another number if their meaning changes."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a figure shows.

    Attributes:
        figure: its name in the catalogue.
        suite: whose trials; of a study, its search.
        protocol: theirs; of a study, its name.
        dataset: theirs; empty for figures over all settings of suite and protocol.
        num_tasks: likewise, else 0.
        distribution: likewise.
        labels: those that a paper shows; empty: all.
        metric: of figures that show one of several.
    """

    figure: str
    suite: str
    protocol: str
    dataset: str = ""
    num_tasks: int = 0
    distribution: str = ""
    labels: tuple[str, ...] = ()
    metric: str = ""

    def __str__(self) -> str:
        parts = (self.suite, self.protocol, self.dataset, self.distribution, self.metric)
        tasks = f"{self.num_tasks} tasks" if self.num_tasks else ""
        return f"{self.figure} of {', '.join(filter(None, (*parts, tasks)))}"


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether a store still gives a figure, and a sentence on it."""

    same: bool
    sentence: str


def about(results: Results, query: Query) -> str:
    """What goes into the metadata of a figure: JSON, the same for the same store and query."""
    own = results.provenance_of(trials_of(results, query))
    held = {
        "format": FORMAT,
        "query": asdict(query),
        "store": digest(results.provenance),
        "trials": {"count": len(own), "digest": digest(own)},
        "matplotlib": mpl.__version__,
    }
    return json.dumps(held, sort_keys=True)


def digest(trials: Iterable[Provenance]) -> str:
    """16 hex digits of these trials and all their numbers but those of time."""
    lines = sorted(f"{line.trial_id} {line.digest}" for line in trials)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def trials_of(results: Results, query: Query) -> list[str]:
    """Ids of the trials that a figure shows."""
    if study := _study(results, query):
        return [trial_id for one in study.tried for trial_id in one.trial_ids]
    trials = results.trials
    keep = (trials["suite"] == query.suite) & (trials["protocol"] == query.protocol)
    if query.dataset:
        keep &= (trials["dataset"] == query.dataset) & (trials["num_tasks"] == query.num_tasks)
        keep &= trials["distribution"] == query.distribution
    return list(map(str, trials.loc[keep, "trial_id"]))


def draw(results: Results, query: Query) -> Figure | None:
    """The figure that a query asks for; None if the store lacks what it shows."""
    if study := _study(results, query):
        return {one.name: one.draw for one in STUDY_FIGURES}[query.figure](study)
    for one in SUITE_FIGURES:
        if one.name == query.figure:
            found = ranking(results, query.suite, query.protocol, query.metric)
            return None if found is None else one.draw(found)
    kinds = {kind.name: kind for kind in panel_figures()}
    if query.figure not in kinds:
        return None
    # The whole suite, as its labels may say how they differ in another setting.
    for panel in panels(results, query.suite):
        place = (panel.suite, panel.protocol, *asdict(panel.setting).values())
        wanted = (query.suite, query.protocol, query.dataset, query.num_tasks, query.distribution)
        if place == wanted:
            shown = panel.only(query.labels) if query.labels else panel
            return None if shown is None else kinds[query.figure].draw(shown)
    return None


def _study(results: Results, query: Query) -> StudyFound | None:
    """The study that a figure shows, if it is one of those."""
    if query.figure not in {one.name for one in STUDY_FIGURES}:
        return None
    places = {(one.search, one.name): one for one in results.studies}
    return places.get((query.suite, query.protocol))


def read_about(path: Path) -> tuple[str, dict[str, Any]]:
    """A figure's metadata, as text and as read.

    Raises:
        StoreError: if the file cannot be read, or is no figure of this program.
    """
    try:
        if path.suffix == ".pdf":
            text = str((PdfReader(path, strict=True).metadata or {}).get("/Subject", ""))
        else:
            with Image.open(path) as image:
                text = str(image.info.get("Description", ""))
    except (OSError, UnidentifiedImageError, PyPdfError) as error:
        raise StoreError(f"{path}: cannot be read as a PNG or PDF ({error})") from error
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise StoreError(f"{path}: its metadata name no query; only figures of a report have one")
    return text, found


def verify(path: Path, root: Path) -> Verified:
    """Draw a figure again from a store and compare the bytes.

    Raises:
        StoreError: if the figure or the store cannot be read.
    """
    text, found = read_about(path)
    asked: dict[str, Any] = {**found["query"], "labels": tuple(found["query"]["labels"])}
    query = Query(**asked)
    results = read(root)
    figure = draw(results, query)
    if figure is None:
        return Verified(False, f"{path}: the store has no {query} any more")
    with tempfile.TemporaryDirectory() as folder:
        files = save(figure, Path(folder) / "again", text)
        (again,) = (one for one in files if one.suffix == path.suffix)
        same = again.read_bytes() == path.read_bytes()
    if same:
        return Verified(True, f"{path}: the store gives {query}, byte for byte")
    return Verified(
        False, f"{path}: the store gives another {query}; {_why(results, query, found)}"
    )


def _why(results: Results, query: Query, found: dict[str, Any]) -> str:
    now = results.provenance_of(trials_of(results, query))
    then = found["trials"]
    if digest(now) != then["digest"]:
        return f"its trials are others now: {then['count']} then, {len(now)} now"
    if found["matplotlib"] != mpl.__version__:
        return (
            "its trials are the same, but it was drawn by matplotlib "
            f"{found['matplotlib']}, and this is {mpl.__version__}"
        )
    return "its trials are the same: records or times differ, or it was drawn by another version"

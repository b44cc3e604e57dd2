"""The report's page: one HTML file that holds its tables, figures and scripts, and asks nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jinja2

from analysis.grid import BEST, SECOND, TIED, Grid
from analysis.load import Provenance, Results
from analysis.metrics import METRICS

_TEMPLATE: Final = "report.html.j2"


@dataclass(frozen=True, slots=True)
class PlainTable:
    """Text in lines and columns; `values` are what a column sorts by, None: by its text.

    `files` are its other forms, relative to the page, as everywhere here.
    """

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    values: Sequence[Sequence[float | None]]
    title: str = ""
    caption: str = ""
    files: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ShownTable:
    """A result table; below it, folded, its intervals and differences."""

    title: str
    caption: str
    grid: Grid
    files: Sequence[str]
    details: PlainTable


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure; `data` is its PNG in base64, `inches` its width in print, which lays it out."""

    title: str
    alt: str
    data: str
    files: Sequence[str]
    inches: float


@dataclass(frozen=True, slots=True)
class Block:
    """A heading with what belongs to it; `notes` are lines of text, such as what is lacking."""

    heading: str
    tables: Sequence[ShownTable] = ()
    plain: Sequence[PlainTable] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A suite or a paper; `failures` are (trial, class, first line) of trials not stored."""

    heading: str
    blocks: Sequence[Block] = ()
    states: dict[str, int] = field(default_factory=dict[str, int])
    failures: Sequence[tuple[str, str, str]] = ()
    more_failures: int = 0


def render(title: str, sections: Sequence[Section], results: Results) -> str:
    """The page of these sections, with definitions of metrics and what made the trials."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(_TEMPLATE).render(
        title=title,
        sections=sections,
        marks={BEST: "best", SECOND: "second"},
        tied=TIED,
        definitions=[(entry.name, entry.formula) for entry in METRICS.values()],
        stored=len(results.provenance),
        unwanted=results.unwanted,
        revisions=_revisions(results.provenance),
        versions=_versions(results.provenance),
    )


def _revisions(lines: Iterable[Provenance]) -> list[tuple[str, bool, int]]:
    """Revision, whether it had uncommitted changes, and the trials made with it."""
    counts = Counter((line.revision, line.dirty) for line in lines)
    return [(revision, dirty, count) for (revision, dirty), count in sorted(counts.items())]


def _versions(lines: Iterable[Provenance]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Library, and its versions with the trials made with each."""
    counts = Counter(pair for line in lines for pair in line.versions)
    names = sorted({name for name, _ in counts})
    return [
        (name, [(text, n) for (of, text), n in sorted(counts.items()) if of == name])
        for name in names
    ]

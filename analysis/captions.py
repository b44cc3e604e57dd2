"""What stands below a table: what its numbers are, what is marked, and what cannot be said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from analysis.aggregate import definition
from analysis.grid import (
    TIED,
    Column,
    Grid,
    Published,
    Setting,
    comparable,
    seeds_text,
    usual_seeds,
)
from analysis.stats import LEVEL, TESTS
from analysis.verdicts import Rules, Verdict, no_verdict

if TYPE_CHECKING:
    from analysis.tables import ResultTable

_NAMED: Final = 3  # columns in a sentence


def caption(source: ResultTable) -> str:
    """What the numbers are: definitions, spread, seeds, protocol, revision, and what marks mean."""
    names: dict[str, list[str]] = {}
    for name in source.metrics:
        names.setdefault(definition(name).formula, []).append(name)
    formulas = [f"{', '.join(own)} = {formula}" for formula, own in names.items()]
    primary = ", ".join(sorted(set(source.cells["primary"])))
    seeds = usual_seeds(source.cells)
    others = {tuple(scores) for scores in source.cells["scores"] if scores} - {seeds}
    unless = " unless a cell says otherwise" if others else ""
    over = f"n = {len(seeds)}" + (f" ({seeds_text(seeds)})" if seeds else "")
    made = ", ".join(source.revisions) or "unknown"
    sentences = [
        f"{source.title}." if source.title else "",
        f"Percent where no unit is named, mean ± sample standard deviation over {over}{unless}.",
        f"{'; '.join(formulas)}; A[k,i] is the accuracy on task i after task k of T, both from 0, "
        f"measured by {primary}.",
        f"Protocol {source.protocol}, suite {source.suite}, git revision {made}.",
        *_on_marks(source),
        *_on_published(source),
    ]
    return " ".join(filter(None, sentences))


def _on_marks(source: ResultTable) -> Iterator[str]:
    """What is marked, and why something is not."""
    found = source.grid
    ranked = [column for column in found.columns if column in found.verdicts]
    if ranked:
        yield "Best bold, second underlined."
        yield from _on_verdicts([found.verdicts[column] for column in ranked], source.rules)
    if unranked := _unequal(found):
        names = ", ".join(f"{column.metric} on {column.setting}" for column in unranked[:_NAMED])
        more = f" and {len(unranked) - _NAMED} more" if len(unranked) > _NAMED else ""
        yield f"Not ranked, since seeds differ or are missing: {names}{more}."
    shown = sorted(set(source.cells.loc[source.cells["reference"], "label"]))
    if shown:
        yield f"Not ranked, being references trained on all data: {', '.join(shown)}."


def _on_published(source: ResultTable) -> Iterator[str]:
    """What stands below the values, and what is odd about it."""
    if "published" not in source.cells or not source.cells["published"].notna().any():
        return
    yield "Below a value stands what the paper prints, and the difference from it."
    odd: dict[str, list[str]] = {}
    for line in source.cells.to_dict("records"):
        one: Published | None = line["published"]
        if one is not None and one.note and not math.isnan(one.mean):
            where = Setting(line["dataset"], line["num_tasks"], line["distribution"])
            odd.setdefault(one.note, []).append(f"{line['label']} on {where} ({line['metric']})")
    for note, places in odd.items():
        yield f"Of the published values, {note}: {'; '.join(places)}."


def _on_verdicts(found: Sequence[Verdict], rules: Rules) -> Iterator[str]:
    if any(len(one.too_few) < len(one.differences) for one in found):
        some = " where seeds are enough" if any(one.too_few for one in found) else ""
        yield (
            f"{TIED} not significantly worse than the best{some} ({TESTS[rules.test]}, "
            f"Holm's correction over the column, {LEVEL:g})."
        )
    if reason := no_verdict(found):
        yield reason


def _unequal(found: Grid) -> list[Column]:
    """The columns that could be ranked if their cells rested on the same seeds."""
    return [
        column
        for column in found.columns
        if column not in found.verdicts
        and definition(column.metric).higher_is_better is not None
        and any(cell.n for cell in found.column(column))
        and not comparable(found, column)
    ]

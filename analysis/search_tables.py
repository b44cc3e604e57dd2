"""Tables of what searches tried, what they found and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from analysis.grid import DIGITS
from analysis.page import PlainTable
from analysis.searches import StudyFound, TriedOne, importance

ENDS: Final = ("done", "stopped", "diverged", "failed", "running")


def bought(found: Sequence[StudyFound]) -> PlainTable:
    """What the budget of each study bought: the method's own settings against the best."""
    heads = [
        "method",
        "data set",
        "own settings",
        "best",
        "gain",
        *ENDS,
        "trainings",
        "of",
        "hours",
    ]
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for study in found:
        ends = Counter(one.end for one in study.tried)
        own, best = study.own, study.chosen
        first = None if own is None else own.value
        last = None if best is None else best.value
        gain = None if first is None or last is None else last - first
        lines.append(
            [
                *(study.label, study.cell, _own(study), percent(last)),
                "" if gain is None else f"{100 * gain:+.{DIGITS}f}",
                *(str(ends[end]) for end in ENDS),
                *(f"{study.trainings:.1f}", f"{study.full:g}", f"{study.hours:.2g}"),
            ]
        )
        counts = [float(ends[end]) for end in ENDS]
        values.append(
            [None, None, first, last, gain, *counts, study.trainings, study.full, study.hours]
        )
    metric = found[0].metric
    caption = (
        f"{metric} in percent on validation images. Own settings: those of the method without a "
        "search, which are the first configuration. Trainings: of one seed over all tasks, those "
        "that were stopped by their share; of: what all configurations would have taken to their "
        "end. Hours of training and measuring, of all trials together."
    )
    return PlainTable(heads, lines, values, "What the budget bought", caption)


def _own(study: StudyFound) -> str:
    """The value of the method's own settings, or what became of them."""
    if study.default is None:
        return "outside the space"
    own = study.own
    if own is None:
        return "not tried"
    return percent(own.value) if own.value is not None else own.end


def settings(study: StudyFound) -> PlainTable:
    """The chosen settings beside the method's own, with the space and what each explains."""
    found = importance(study)
    shares: Mapping[str, float] = {} if found is None else found[0]
    chosen, own = study.chosen, study.default
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for name, kind in study.space.items():
        share = shares.get(name)
        lines.append(
            [
                name,
                "" if chosen is None else written(chosen.configuration[name]),
                "" if own is None else written(own[name]),
                searched_over(kind),
                "" if share is None else f"{share:.2f}",
            ]
        )
        values.append([None, None, None, None, share])
    caption = "Edge of the range: the best value may lie beyond it. " * _at_edge(study)
    if found is None:
        caption += "Importance: too few configurations to tell, or all did as well."
    else:
        _, step, count = found
        caption += (
            f"Importance: share of the variance of {study.metric} after {step} tasks over {count} "
            "configurations that it explains alone (fANOVA)."
        )
    heads = ["hyperparameter", "best", "own", "space", "importance"]
    return PlainTable(heads, lines, values, "Best settings", caption)


def _at_edge(study: StudyFound) -> bool:
    chosen = study.chosen
    if chosen is None:
        return False
    return any(
        chosen.configuration[name] in (kind["low"], kind["high"])
        for name, kind in study.space.items()
        if "low" in kind
    )


def rung_table(study: StudyFound) -> PlainTable:
    """How many configurations came to each rung, and what was the best there."""
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for step in study.steps():
        reached = [one.values[step] for one in study.tried if step in one.values]
        stopped = sum(one.end == "stopped" and one.tasks == step for one in study.tried)
        best = max(reached, default=None)
        lines.append([str(step), str(len(reached)), str(stopped), percent(best)])
        values.append([float(step), float(len(reached)), float(stopped), best])
    eta = study.options["eta"]
    caption = f"Of those that come to a rung, 1 in {eta} goes on, one at least."
    heads = ["tasks", "came here", "stopped here", f"best {study.metric}"]
    return PlainTable(heads, lines, values, "Rungs", caption)


def configurations(study: StudyFound) -> PlainTable:
    """Every configuration, in the order they were begun."""
    names = list(study.space)
    heads = ["number", *names, study.metric, "end", "tasks", "seconds", "detail"]
    lines: list[list[str]] = []
    values: list[list[float | None]] = []
    for one in study.tried:
        own = [one.configuration[name] for name in names]
        lines.append(
            [
                *(str(one.number), *map(written, own), percent(one.last), one.end),
                *(str(one.tasks), f"{one.seconds:.1f}", one.detail),
            ]
        )
        numbers = [float(x) if _is_number(x) else None for x in own]
        values.append(
            [float(one.number), *numbers, one.last, None, float(one.tasks), one.seconds, None]
        )
    caption = (
        f"{study.metric} in percent on validation images; of what did not come to its end, after "
        "the last task that it learned."
    )
    return PlainTable(heads, lines, values, "All configurations", caption)


def sentence(study: StudyFound) -> str:
    """What was searched, and how."""
    options, seeds = study.options, study.options["seeds"]
    first = options["first_tasks"]
    of_tasks = f"the first {study.tasks} tasks alone" if first else f"{study.tasks} tasks"
    stops = (
        "nothing was stopped early"
        if options["scheduler"] == "none"
        else f"{options['scheduler']} stopped what fell behind"
    )
    return (
        f"{len(study.tried)} of {study.configurations} configurations by {options['algorithm']} "
        f"(seed {options['search_seed']}), {_counted(len(seeds), 'seed')} of {of_tasks} each; "
        f"{stops}. Chosen by {study.metric} on validation images; no test image was looked at."
    )


def searched_over(kind: Mapping[str, Any]) -> str:
    """A range for reading: `0.001 to 1, logarithmic`."""
    if "values" in kind:
        return ", ".join(map(written, kind["values"]))
    return f"{kind['low']:g} to {kind['high']:g}" + (", logarithmic" if kind["log"] else "")


def written(value: object) -> str:
    """A setting's value as a file would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.{DIGITS}f}"


def best_so_far(tried: Sequence[TriedOne]) -> list[float | None]:
    """The best value among the configurations up to each."""
    found: list[float | None] = []
    best: float | None = None
    for one in tried:
        if one.value is not None and (best is None or one.value > best):
            best = one.value
        found.append(best)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

"""Progress of a search: a line a configuration, and what runs on a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import final

from rich.console import Console, Group
from rich.text import Text

from harness.draw import Tried
from harness.progress import PLAIN_SECONDS, clock, live_view
from harness.space import Configuration
from harness.study import Attempt, Study
from harness.study_plan import StudyPlan, size_of
from harness.trial import Progress


@final
class SearchDisplay:
    """Shows what was tried, how it did, the best so far, and the time left."""

    def __init__(self, console: Console, studies: Sequence[Study]) -> None:
        self.console = console
        self.studies = studies
        self._running: dict[tuple[str, int], tuple[Attempt, Progress | None]] = {}
        self._began = self._last_line = time.monotonic()
        self._ended = 0
        self._left = sum(_left(study) for study in studies)

    def shown(self) -> AbstractContextManager[None]:
        """While it lasts, a terminal shows what is running; the time left counts from its start."""
        self._began = time.monotonic()
        return live_view(self.console, self._render)

    def began(self, study: Study, attempt: Attempt) -> None:
        self._running[study.plan.name, attempt.number] = attempt, None

    def progressed(self, study: Study, number: int, progress: Progress) -> None:
        key = study.plan.name, number
        self._running[key] = self._running[key][0], progress
        quiet = time.monotonic() - self._last_line < PLAIN_SECONDS
        if not self.console.is_terminal and not quiet:
            self._line(f"  running {_described(*key, *self._running[key])}")

    def restarted(self, study: Study, number: int) -> None:
        self._line(f"  again {study.plan.name} #{number}: its worker was lost")

    def ended(self, study: Study, number: int) -> None:
        self._running.pop((study.plan.name, number), None)
        self._ended += 1
        tried = study.tried()
        count = sum(one.end != "running" for one in tried)
        best = study.best()
        so_far = f"; best {percent(best.value)} (#{best.number})" if best else ""
        left = "" if self.console.is_terminal else f", {clock(self._seconds_left())} left"
        self._line(
            f"[{count}/{study.plan.configurations}] {study.plan.name} {outcome(tried[number])}"
            f"{so_far}{left}"
        )

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(Text(text), soft_wrap=True)

    def _render(self) -> Group:
        # From another thread: it must not look into the studies.
        wanted = sum(study.plan.configurations for study in self.studies)
        ended = wanted - self._left + self._ended
        head = f"{ended} of {wanted} configurations, {clock(self._seconds_left())} left"
        running = [_described(*key, *found) for key, found in list(self._running.items())]
        return Group(Text(head), *(Text(f"  {line}") for line in running))

    def _seconds_left(self) -> float | None:
        """By the pace of this run; None before its first configuration has ended."""
        if not self._ended:
            return None
        pace = (time.monotonic() - self._began) / self._ended
        return pace * max(self._left - self._ended, 0)


def _left(study: Study) -> int:
    ended = sum(one.end != "running" for one in study.tried())
    return max(study.plan.configurations - ended, 0)


def _described(study: str, number: int, attempt: Attempt, progress: Progress | None) -> str:
    """A configuration that is running, and where it is."""
    name = f"{study} #{number} {written(attempt.configuration)}"
    if progress is None:
        return f"{name}: starting"
    at = min(progress.tasks_done + 1, progress.num_tasks)
    seeds = len(attempt.trials)
    seed = f"seed {attempt.ended + 1} of {seeds}, " if seeds > 1 else ""
    found = "" if progress.accuracy is None else f", accuracy {percent(progress.accuracy)}"
    return f"{name}: {seed}task {at} of {progress.num_tasks}{found}"


def plan_line(plan: StudyPlan) -> str:
    """What a study will do, in a line."""
    options = plan.options
    count = plan.configurations
    seeds = len(options.seeds)
    stops = "" if options.scheduler == "none" else f", {options.scheduler}"
    whole = size_of(plan)
    cut = f" (of {whole:g})" if options.algorithm == "grid" and whole > count else ""
    return (
        f"{plan.name}: {count}{cut} configurations of {', '.join(plan.space)}, "
        f"{seeds} seed{'s' * (seeds > 1)} of {plan.tasks} tasks each; {options.algorithm}{stops}, "
        f"by {options.metric} on {100 * plan.forced['validation']:g} % of the training images"
    )


def found_lines(studies: Sequence[Study], written_to: Path | None) -> Iterator[str]:
    """What a search found, what it cost, and what to do next."""
    for study in studies:
        tried, best, options = study.tried(), study.best(), study.plan.options
        ends = Counter(one.end for one in tried)
        counts = ", ".join(f"{count} {end}" for end, count in ends.items())
        trainings, hours = study.spent()
        full = len(tried) * len(options.seeds)
        spent = f"{counts}; {trainings:.1f} trainings of {full}, {clock(3600 * hours)}"
        if best is None:
            yield f"{study.plan.name}: no configuration ran to its end; {spent}"
            continue
        found = f"{written(best.configuration)} (#{best.number}): {options.metric} "
        yield f"{study.plan.name}: {found}{percent(best.value)} on validation; {spent}"
    if written_to is not None:
        yield f"python run_benchmark.py run {written_to} tests what was found"
    yield f"python run_benchmark.py report {studies[0].store.root} shows all that was tried"


def outcome(tried: Tried) -> str:
    """A configuration and how it did, in a line: `#3 lr=0.05: 81.2 %`."""
    name = f"#{tried.number} {written(tried.configuration)}"
    if tried.value is not None:
        return f"{name}: {percent(tried.value)}"
    reached = f" after task {tried.tasks}" if tried.values else ""
    last = f" at {percent(list(tried.values.values())[-1])}" if tried.values else ""
    detail = f": {tried.detail}" if tried.detail else ""
    return f"{name}: {tried.end}{reached}{last}{detail}"


def written(configuration: Configuration) -> str:
    """`lr=0.05, omega=2`."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in configuration.items()
    )


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"

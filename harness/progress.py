"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.execute import Outcome
from harness.forecast import Forecast
from harness.spec import Trial
from harness.trial import Progress

PLAIN_SECONDS = 10.0
"""Seconds between two lines about running trials where the output is not a terminal."""


class Listener(Protocol):
    """Is told by an executor what happens."""

    def started(self, trial_id: str) -> None: ...
    def progressed(self, progress: Progress) -> None: ...
    def restarted(self, trial_id: str) -> None: ...
    def ended(self, outcome: Outcome) -> None: ...


@dataclass(slots=True)
class _Running:
    since: float
    progress: Progress | None = None


@dataclass(slots=True)
class _Counts:
    done: int = 0
    diverged: int = 0
    failed: int = 0

    def add(self, outcome: Outcome) -> None:
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)

    @property
    def ended(self) -> int:
        return self.done + self.diverged + self.failed


@final
@dataclass(slots=True)
class ProgressDisplay:
    """Shows trials done, running and failed, the task each is at, its accuracy, the time left."""

    console: Console
    trials: dict[str, Trial]
    forecast: Forecast
    slots: int = 1
    _running: dict[str, _Running] = field(default_factory=dict[str, _Running])
    _ended: set[str] = field(default_factory=set[str])
    _counts: _Counts = field(default_factory=_Counts)
    _last_line: float = 0.0

    @classmethod
    def of(cls, console: Console, trials: Sequence[Trial], forecast: Forecast) -> ProgressDisplay:
        return cls(console, {trial.trial_id: trial for trial in trials}, forecast)

    def shown(self) -> AbstractContextManager[None]:
        """While it lasts, a terminal shows what is running."""
        return live_view(self.console, self._render)

    def started(self, trial_id: str) -> None:
        self._running.setdefault(trial_id, _Running(time.monotonic()))

    def progressed(self, progress: Progress) -> None:
        self.started(progress.trial_id)
        self._running[progress.trial_id].progress = progress
        quiet = time.monotonic() - self._last_line < PLAIN_SECONDS
        if not self.console.is_terminal and progress.tasks_done and not quiet:
            self._line(f"  running {self._describe(progress.trial_id)}")

    def restarted(self, trial_id: str) -> None:
        self._line(f"  again {self.trials[trial_id].title}: its worker was lost")

    def ended(self, outcome: Outcome) -> None:
        running = self._running.pop(outcome.trial_id, None)
        if outcome.status == "busy" or outcome.trial_id in self._ended:
            return
        self._ended.add(outcome.trial_id)
        self._counts.add(outcome)
        trial = self.trials[outcome.trial_id]
        seconds = time.monotonic() - running.since if running else None
        if outcome.status == "done" and seconds is not None:
            self.forecast.learn(trial, seconds)
        progress = running.progress if running else None
        accuracy = _percent(progress.accuracy if progress else None)
        took = f" {seconds:.1f} s" if seconds is not None else ""
        detail = f": {outcome.detail}" if outcome.detail else ""
        count = f"[{self._counts.ended}/{len(self.trials)}]"
        left = f", {clock(self._seconds_left())} left" if not self.console.is_terminal else ""
        self._line(f"{count} {outcome.status} {trial.title}{accuracy}{took}{detail}{left}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(Text(text), soft_wrap=True)

    def _describe(self, trial_id: str) -> str:
        progress = self._running[trial_id].progress
        if progress is None:
            return f"{self.trials[trial_id].title}: starting"
        at = min(progress.tasks_done + 1, progress.num_tasks)
        accuracy = _percent(progress.accuracy)
        return f"{self.trials[trial_id].title}: task {at} of {progress.num_tasks}{accuracy}"

    def _render(self) -> Group:
        counts = self._counts
        waiting = len(self.trials) - counts.ended - len(self._running)
        head = Text(
            f"{counts.done} done, {len(self._running)} running, {waiting} waiting, "
            f"{counts.failed} failed, {counts.diverged} diverged; "
            f"{clock(self._seconds_left())} left"
        )
        table = Table.grid(padding=(0, 2))
        for trial_id in list(self._running):
            table.add_row("", self._describe(trial_id))
        return Group(head, table)

    def _seconds_left(self) -> float | None:
        left = 0.0
        for trial_id, trial in self.trials.items():
            if trial_id in self._ended:
                continue
            estimate = self.forecast.seconds(trial)
            if estimate is None:
                return None
            running = self._running.get(trial_id)
            spent = time.monotonic() - running.since if running else 0.0
            left += max(estimate - spent, 0.0)
        return left / max(self.slots, 1)


@contextmanager
def live_view(console: Console, render: Callable[[], RenderableType]) -> Generator[None]:
    """Show what `render` gives, twice a second; on a terminal alone."""
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=render, console=console, refresh_per_second=2, transient=True):
        yield


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

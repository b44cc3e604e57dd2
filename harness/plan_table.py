"""What `plan` shows: the state of every combination, and a forecast of the time left."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator

from rich.table import Table

from harness.progress import clock
from harness.run import STATES, Plan
from harness.spec import Trial


def plan_table(plan: Plan) -> Table:
    """One row a method, data set and number of tasks; counts of its seeds by state."""
    rows: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for trial in plan.trials:
        rows[_row(trial)][plan.states[trial.trial_id]] += 1
    table = Table(title=f"{plan.suite.name} in {plan.store.root}", title_justify="left")
    for column in ("protocol", "method", "data set/tasks"):
        table.add_column(column, overflow="fold")
    for state in STATES:
        table.add_column(state, justify="right")
    for names, counts in rows.items():
        table.add_row(*names, *(str(counts[state] or "") for state in STATES))
    totals = Counter(plan.states[trial.trial_id] for trial in plan.trials)
    table.add_section()
    table.add_row("all", "", "", *(str(totals[state] or "") for state in STATES))
    return table


def plan_lines(plan: Plan, workers: int | None) -> Iterator[str]:
    """What is skipped and why, what failed and why, and how long the rest may take."""
    for skip in plan.skips:
        yield f"skipped {skip.title}: {skip.reason}"
    for trial in plan.trials:
        if plan.states[trial.trial_id] in {"failed", "diverged"}:
            failure = plan.failures[trial.trial_id]
            yield f"{plan.states[trial.trial_id]} {trial.title}: {failure.kind}: {failure.message}"
    todo = plan.to_run()
    if not todo:
        yield "nothing to run"
        return
    estimates = [plan.forecast.seconds(trial) for trial in todo]
    known = [seconds for seconds in estimates if seconds is not None]
    if len(known) < len(todo):
        yield f"{len(todo)} trials to run; no stored durations to tell how long they take"
        return
    slots = workers or max(1, int((os.cpu_count() or 1) / max(t.resources.cpu for t in todo)))
    total = sum(known)
    yield (
        f"{len(todo)} trials to run; about {clock(total)} of trials, "
        f"{clock(total / slots)} with {slots} at once on this machine"
    )


def _row(trial: Trial) -> tuple[str, ...]:
    return trial.protocol_name, trial.label, trial.cell

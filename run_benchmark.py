"""Engram's command line: from a YAML file to a table of continual-learning results.

Exit status: 0 if every trial is done, 1 if one failed, 2 if the input is wrong, 130 on Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from analysis.paper import Paper
    from harness.run import Plan

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A distributed benchmark for continual learning.",
)
# Rich takes 80 columns for a pipe, which would cut the tables of a log file.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

_COMPACTED_A_LINE = 1000
_FIGURES_SECONDS = 5.0


class ExecutorName(StrEnum):
    RAY = "ray"
    INLINE = "inline"


SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE.yaml", help="The suite to run.")]
ResultsOption = Annotated[
    Path | None, typer.Option("--results", help="Results folder; default results/<suite>.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; the value is YAML."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="KEY=V1,V2", help="Keep the matching trials, e.g. method=er."),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="HOST:PORT of a Ray cluster; default: this machine.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="At most this many trials at once.")
]
RetryOption = Annotated[
    list[str] | None, typer.Option("--retry", help="Also repeat trials that ended so: diverged.")
]
RootOption = Annotated[
    str | None, typer.Option("--root", help="Where data sets live; default ENGRAM_DATA.")
]


@app.command()
def run(
    suite: SuiteFile,
    results: ResultsOption = None,
    assignments: SetOption = None,
    only: OnlyOption = None,
    executor: ExecutorName = ExecutorName.RAY,
    address: AddressOption = None,
    workers: WorkersOption = None,
    retry: RetryOption = None,
) -> None:
    """Run what a suite wants and the store lacks, then print its tables."""
    from harness.run import run_plan

    plan = _plan(suite, results, assignments, only, retry)
    for skip in plan.skips:
        console.print(f"skipped {skip.title}: {skip.reason}", markup=False)
    todo = len(plan.to_run())
    console.print(f"{plan.suite.name}: {len(plan.trials)} trials, {todo} to run", markup=False)
    try:
        outcomes = run_plan(
            plan, console, executor=executor.value, address=address, workers=workers
        )
    except KeyboardInterrupt:
        _interrupted()
    failed = False
    try:
        _print_tables(plan.store.root, plan.suite.name)
    except UserError as error:
        if not outcomes:
            raise
        # The trials ran and are stored: what spoils the table is not an error of this run's input.
        print(f"error: {error}", file=sys.stderr)
        failed = True
    counts = Counter(outcome.status for outcome in outcomes)
    if outcomes:
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        console.print(f"{summary}; stored in {plan.store.root}", markup=False, soft_wrap=True)
    if counts["failed"]:
        console.print("run the same command again to repeat what failed", markup=False)
    raise typer.Exit(1 if failed or counts["failed"] else 0)


@app.command()
def plan(
    suite: SuiteFile,
    results: ResultsOption = None,
    assignments: SetOption = None,
    only: OnlyOption = None,
    executor: ExecutorName = ExecutorName.RAY,
    address: AddressOption = None,
    workers: WorkersOption = None,
    retry: RetryOption = None,
) -> None:
    """Show what is done, missing or failed and how long the rest may take; run nothing."""
    from harness.plan_table import plan_lines, plan_table

    del address
    made = _plan(suite, results, assignments, only, retry)
    console.print(plan_table(made))
    at_once = 1 if executor is ExecutorName.INLINE else workers
    for line in plan_lines(made, at_once):
        console.print(line, markup=False, soft_wrap=True)


@app.command()
def search(
    file: Annotated[
        Path | None, typer.Argument(metavar="SEARCH.yaml", help="The search to run.")
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", metavar="SUITE.yaml", help="Search for every method of a suite."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Configurations to try, of each method.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Results folder; default results/<name>_search."),
    ] = None,
    assignments: SetOption = None,
    executor: ExecutorName = ExecutorName.RAY,
    address: AddressOption = None,
    workers: WorkersOption = None,
) -> None:
    """Choose hyperparameters on validation images; ends by writing a suite to test them."""
    from harness.search import Machines, run_search
    from harness.search_file import read_search, search_suite
    from harness.search_progress import found_lines, plan_line

    given = [*(assignments or []), *([] if trials is None else [f"trials={trials}"])]
    if file is not None and suite is None:
        asked = read_search(file, given)
    elif suite is not None and file is None:
        asked = search_suite(suite, given)
    else:
        raise UserError("search: name one SEARCH.yaml, or a suite by --suite")
    for plan in asked.plans:
        console.print(plan_line(plan), markup=False, soft_wrap=True)
    store = results or Path("results") / f"{asked.name}_search"
    machines = Machines(executor.value, address, workers)
    try:
        studies, written = run_search(asked, store, console, machines)
    except KeyboardInterrupt:
        _interrupted()
    for line in found_lines(studies, written):
        console.print(line, markup=False, soft_wrap=True)
    failed = any(one.end == "failed" for study in studies for one in study.tried())
    raise typer.Exit(1 if failed or written is None else 0)


class TestName(StrEnum):
    SIGN_FLIP = "sign_flip"
    T = "t"


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")],
    paper: Annotated[
        str | None, typer.Option("--paper", help="Show what this paper shows; see `list papers`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; default DIR/report, DIR/report-PAPER."),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="FILE", help="Only say whether DIR still gives a figure."),
    ] = None,
    test: Annotated[
        TestName, typer.Option("--test", help="Of differences from the best, paired by seed.")
    ] = TestName.SIGN_FLIP,
    rank_unequal: Annotated[
        bool, typer.Option("--rank-unequal", help="Rank cells though their seeds differ.")
    ] = False,
) -> None:
    """Write tables (md, tex, csv), figures (png, pdf) and index.html from stored results."""
    from analysis.load import StoreError
    from analysis.report import write_report
    from analysis.verdicts import Rules

    try:
        if verify is not None:
            _verify(verify, results)
        shown = None if paper is None else _paper(paper)
        folder = out or results / (f"report-{paper}" if paper else "report")
        rules = Rules(test.value, rank_unequal)
        index = write_report(results, folder, shown, rules, _Figures())
    except StoreError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None
    console.print(f"report: {index.absolute()}", markup=False, soft_wrap=True)


def _verify(file: Path, results: Path) -> NoReturn:
    from analysis.origin import verify

    found = verify(file, results)
    console.print(found.sentence, markup=False, soft_wrap=True)
    raise typer.Exit(0 if found.same else 1)


def _paper(name: str) -> Paper:
    from analysis.paper import papers

    known = papers()
    if name not in known:
        raise unknown("paper", name, list(known), where="--paper")
    return known[name]


class _Figures:
    """Says which figure is drawn, if reports take long, every few seconds."""

    def __init__(self) -> None:
        self._drawn, self._said = 0, time.monotonic()

    def __call__(self, what: str) -> None:
        self._drawn += 1
        if time.monotonic() - self._said > _FIGURES_SECONDS:
            self._said = time.monotonic()
            console.print(f"figure {self._drawn}: {what}", markup=False)


@app.command()
def compact(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.")],
) -> None:
    """Merge trial files into few, which read many times faster; the results stay the same."""
    from harness.compact import compact as merge
    from harness.store import Store

    shown = 0

    def notify(done: int, total: int) -> None:
        nonlocal shown
        if done == total or done - shown >= _COMPACTED_A_LINE:
            shown = done
            console.print(f"{done} of {total} trials merged", markup=False)

    done = merge(Store(results), notify)
    if done.part is None:
        console.print(f"{results}: {done.trials} trials, nothing to merge", markup=False)
        return
    sources = f"{done.files} files" + (f" and {done.old_parts} parts" if done.old_parts else "")
    console.print(
        f"{sources} ({decimal(done.before)}) are now one part of {done.trials} trials "
        f"({decimal(done.after)}): {done.part}",
        markup=False,
        soft_wrap=True,
    )


class Listed(StrEnum):
    METHODS = "methods"
    DATASETS = "datasets"
    PROTOCOLS = "protocols"
    SUITES = "suites"
    SEARCHES = "searches"
    EVALUATORS = "evaluators"
    OBJECTIVES = "objectives"
    BACKBONES = "backbones"
    AUGMENTATIONS = "augmentations"
    PAPERS = "papers"


@app.command(name="list")
def list_(kind: Annotated[Listed, typer.Argument(help="What to list.")]) -> None:
    """List what a suite can name, with one line each on a terminal, else bare names."""
    from harness.catalogue import listing

    rows = listing(kind.value)
    if not console.is_terminal:
        sys.stdout.writelines(f"{name}\n" for name, _ in rows)
        return
    table = Table.grid(padding=(0, 2))
    for name, summary in rows:
        table.add_row(f"[bold]{name}[/bold]", summary)
    console.print(table)


@app.command()
def show(method: Annotated[str, typer.Argument(help="A method's name.")]) -> None:
    """Show a method's paper, what it needs, and its settings with defaults and their sources."""
    from harness.catalogue import describe

    console.print(describe(method), markup=False, soft_wrap=True)


class DataAction(StrEnum):
    LIST = "list"
    CHECK = "check"
    PREPARE = "prepare"


@app.command()
def data(
    action: Annotated[DataAction, typer.Argument(help="What to do.")],
    name: Annotated[
        str | None, typer.Argument(help="A data set; or, to prepare all that it needs, a suite.")
    ] = None,
    root: RootOption = None,
    assignments: SetOption = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch it, where that is possible.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode at once.", min=1)
    ] = None,
) -> None:
    """List the data sets, check one against what was published, or prepare it (decode, fetch)."""
    from harness.data import inspection, shelf

    where = shelf.data_root(root)
    if action is DataAction.LIST:
        console.print(inspection.overview(where))
        return
    if name is None:
        raise UserError(f"data {action}: which data set? `data list` shows them")
    if action is DataAction.PREPARE and name.endswith((".yaml", ".yml")):
        _prepare_suite(Path(name), assignments, root)
        return
    config = shelf.settings_of(name, assignments or [], where=f"data {action}")
    console.print(f"{action} {name} in {where}", markup=False, soft_wrap=True)
    if action is DataAction.PREPARE:
        dataset = shelf.prepare(name, config, where, download=download, workers=workers)
        console.print(f"{inspection.summary(dataset)}: ready", markup=False, soft_wrap=True)
        return
    for line in inspection.check(name, config, where):
        console.print(line, markup=False, soft_wrap=True)


def _prepare_suite(path: Path, assignments: list[str] | None, root: str | None) -> None:
    """Everything that the trials of a suite read, with the settings and seeds that they have."""
    from harness.data.shelf import data_root
    from harness.grid import expand
    from harness.run import check_data
    from harness.suite import load_suite

    suite = load_suite(path, assignments or [])
    where = data_root(root or suite.data_root)
    console.print(f"prepare what {suite.name} needs in {where}", markup=False, soft_wrap=True)
    trials, _ = expand(suite)
    check_data(trials, where, console)
    console.print("ready", markup=False)


@app.command()
def reproduce(
    trial_id: Annotated[str, typer.Argument(help="16 hex digits, as in results files.")],
    results: Annotated[Path, typer.Option("--results", help="The folder it is stored in.")],
    root: RootOption = None,
) -> None:
    """Run a stored trial again, here and now, and compare every number."""
    from harness.reproduce import reproduce as again

    comparison = again(trial_id, results, root, console)
    for line in comparison.lines():
        console.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(0 if comparison.equal else 1)


def _plan(
    suite: Path,
    results: Path | None,
    assignments: list[str] | None,
    only: list[str] | None,
    retry: list[str] | None,
) -> Plan:
    from harness.run import Request, make_plan

    for state in retry or []:
        if state != "diverged":
            raise unknown("state", state, ["diverged"], where="--retry")
    request = Request(suite, results, assignments or [], only or [], frozenset(retry or []))
    made = make_plan(request)
    for names in made.suite.metrics:
        _check_metrics(names, where=f"{suite}: metrics")
    return made


def _check_metrics(names: Sequence[str], *, where: str) -> None:
    from analysis.aggregate import definition
    from analysis.metrics import METRICS
    from analysis.scalars import SCALARS

    for name in names:
        try:
            definition(name)
        except ValueError:
            raise unknown("metric", name, [*METRICS, *SCALARS], where=where) from None


def _print_tables(results: Path, suite: str | None = None) -> None:
    from analysis.load import StoreError
    from analysis.terminal import terminal_tables

    try:
        for table in terminal_tables(results, suite, width=console.width):
            console.print(table)
    except StoreError as error:
        raise UserError(str(error)) from None


def _interrupted() -> NoReturn:
    """Leave at once: what is finished is stored, and no thread may hold up the exit."""
    console.print("interrupted; finished trials are stored, the same command goes on from here")
    sys.stdout.flush()
    os._exit(130)


def main() -> None:
    """Run the command line; the user's errors become one message and status 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

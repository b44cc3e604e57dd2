"""Calls the command line as its users do: a process of its own, its output and its exit status."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Forks of a process that has imported the heavy libraries: that saves seconds a call. The script
# itself runs anew each time.
_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(
    [
        *("harness.run", "harness.plan_table", "harness.reproduce", "analysis.report"),
        *("harness.search", "alembic.command", "sqlalchemy.dialects.sqlite"),
        *("sklearn.datasets", "torch._dynamo"),  # imported by the first trial
    ]
)


@dataclass(frozen=True)
class Finished:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """`run_benchmark.py` at work in a process group of its own, as a shell starts it."""

    pid: int
    scratch: Path
    wait: Callable[[float], int | None]  # the exit status, or None if the seconds are over

    def tell(self, what: signal.Signals, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, what)

    def finish(self, seconds: float = 240) -> Finished:
        status = self.wait(seconds)
        if status is None:
            self.tell(signal.SIGKILL, group=True)
            self.wait(10)
        out, err = ((self.scratch / name).read_text() for name in ("out", "err"))
        if status is None:
            raise TimeoutError(f"not finished in {seconds} s: {out}{err}")
        return Finished(status, out, err)


def start(arguments: Sequence[str], environment: Mapping[str, str], scratch: Path) -> Running:
    """Start it as `python run_benchmark.py`."""
    with (scratch / "out").open("w") as out, (scratch / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run_benchmark.py"), *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def wait(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    return Running(process.pid, scratch, wait)


def start_warm(arguments: Sequence[str], environment: Mapping[str, str], scratch: Path) -> Running:
    """Start it in a fork of an interpreter whose libraries are loaded."""
    process = _warm.Process(target=_run, args=(list(arguments), dict(environment), scratch))
    process.start()

    def wait(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Running(process.pid, scratch, wait)


def _run(arguments: list[str], environment: dict[str, str], scratch: Path) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.update(environment)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    sys.argv = [str(ROOT / "run_benchmark.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")

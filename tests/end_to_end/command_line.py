"""Calls the command line as its users do: a process of its own, its output and its exit status."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The same script, but forked from a process that has imported the heavy libraries already: that
# saves two seconds a call. The script itself and all it does run anew each time.
_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(
    [
        *("harness.run", "harness.plan_table", "harness.reproduce", "analysis.report"),
        *("sklearn.datasets", "torch._dynamo"),  # imported by the first trial
    ]
)


@dataclass(frozen=True)
class Finished:
    status: int
    out: str
    err: str


def start(arguments: Sequence[str], environment: Mapping[str, str], **pipes) -> subprocess.Popen:
    """Start `run_benchmark.py` in a new process group, as a shell does."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_benchmark.py"), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **pipes,
    )


def finish(process: subprocess.Popen, seconds: float = 240) -> Finished:
    """Wait for the end of a process that `start` began."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Finished(process.returncode, out, err)


def call_warm(
    arguments: Sequence[str], environment: Mapping[str, str], scratch: Path, seconds: float = 120
) -> Finished:
    """Run `run_benchmark.py` in a fork of an interpreter whose libraries are loaded."""
    out, err = scratch / "stdout.txt", scratch / "stderr.txt"
    process = _warm.Process(target=_run, args=(list(arguments), dict(environment), out, err))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{arguments}: not finished in {seconds} s")
    finished = Finished(process.exitcode, out.read_text(), err.read_text())
    process.close()
    return finished


def _run(arguments: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(ROOT)
    os.environ.update(environment)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    sys.argv = [str(ROOT / "run_benchmark.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")

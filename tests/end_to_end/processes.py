"""Looks at the processes that a test has started, and waits for what they do. Linux only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

PROC = Path("/proc")


class Process(NamedTuple):
    """A process by its id and start time, since ids are used again."""

    pid: int
    started: int


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 120) -> T:
    """What `look` gives as soon as that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds} s")


def descendants(pid: int) -> set[Process]:
    """The process itself and all that come from it."""
    children: dict[int, list[int]] = {}
    for child in _pids():
        fields = _stat(child)
        if fields:
            children.setdefault(int(fields[1]), []).append(child)
    found, waiting = set(), [pid]
    while waiting:
        current = waiting.pop()
        fields = _stat(current)
        if fields:
            found.add(Process(current, int(fields[19])))
        waiting += children.get(current, [])
    return found


def alive(process: Process) -> bool:
    fields = _stat(process.pid)
    return bool(fields) and int(fields[19]) == process.started and fields[0] not in "ZX"


def holder(path: Path, family: set[Process]) -> int | None:
    """The process of a family that has a file open, such as the lock of the trial it runs."""
    for pid, _ in family:
        try:
            if any(entry.readlink() == path for entry in (PROC / str(pid) / "fd").iterdir()):
                return pid
        except OSError:
            continue
    return None


def checkpoint(store: Path, task: int) -> str:
    """Wait until some trial has saved its state after this task; the trial's id."""
    pattern = f"checkpoints/*/task_{task:04d}_*.pt"
    found = wait_for(lambda: next(store.glob(pattern), None), f"a checkpoint of task {task}")
    return found.parent.name


def title(process: Process) -> str:
    """The command line of a process, or what it has put in its place."""
    try:
        return (PROC / str(process.pid) / "cmdline").read_text()
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process; nothing if there is none."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

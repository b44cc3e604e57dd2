"""What every end-to-end test gets: suites to run, a command line to run them, a Ray to join."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, Finished, Running, start, start_warm
from processes import wait_for
from stored import numbers

TINY = {
    "protocol": "class_incremental",
    "methods": ["finetune", "er"],
    "datasets": ["digits"],
    "num_tasks": [5],
    "seeds": [0, 1],
    "set": {"epochs": 1, "buffer_size": 50, "backbone": {"name": "mlp", "hidden": [32]}},
}

Suite = Callable[..., str]
Call = Callable[..., Finished]
Start = Callable[..., Running]


@dataclass(frozen=True)
class Node:
    """A Ray on this machine: its address, and the token that a driver needs in its environment."""

    address: str
    token: dict[str, str]
    pid: int


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """No test reads or writes the user's own data sets."""
    return {"ENGRAM_DATA": str(tmp_path_factory.mktemp("data"))}


@pytest.fixture
def suite(tmp_path) -> Suite:
    """Writes a suite of four small trials, with other keys where asked; gives its path."""

    def write(name: str = "tiny", **keys: Any) -> str:
        path = tmp_path / f"{name}.yaml"
        both = {**TINY, **keys, "set": {**TINY["set"], **keys.get("set", {})}}
        path.write_text(json.dumps(both))  # JSON is YAML
        return str(path)

    return write


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def scratch(tmp_path) -> Callable[[], Path]:
    """A new folder at every call."""

    def make() -> Path:
        folder = tmp_path / f"process-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        return folder

    return make


@pytest.fixture
def begin(scratch, environment) -> Start:
    """The command line with some arguments, started."""
    return lambda *arguments: start_warm([str(a) for a in arguments], environment, scratch())


@pytest.fixture
def begin_cold(scratch, environment) -> Start:
    """The same as `python run_benchmark.py`; more environment may be given."""

    def begin(*arguments: Any, **more: str) -> Running:
        return start([str(a) for a in arguments], {**environment, **more}, scratch())

    return begin


@pytest.fixture
def call(begin) -> Call:
    """The command line with some arguments, to its end."""
    return lambda *arguments: begin(*arguments).finish(120)


@pytest.fixture
def run(call, store) -> Call:
    """`run SUITE --executor inline` into the test's own store."""
    return lambda path, *more: call("run", path, "--results", store, "--executor", "inline", *more)


@pytest.fixture(scope="session")
def long(tmp_path_factory) -> str:
    """A suite of two trials that last some seconds each."""
    path = tmp_path_factory.mktemp("long") / "long.yaml"
    path.write_text(json.dumps({**TINY, "methods": ["er"], "set": {**TINY["set"], "epochs": 25}}))
    return str(path)


@pytest.fixture(scope="session")
def undisturbed(long, environment, tmp_path_factory) -> Callable[..., dict[str, Any]]:
    """The numbers of the long suite, with so many seeds, when nothing happens to it."""

    @cache
    def run(seeds: int = 2) -> dict[str, Any]:
        store, scratch = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("process")
        chosen = f"seeds={list(range(seeds))}"
        command = ["run", long, "--results", str(store), "--executor", "inline", "--set", chosen]
        assert start_warm(command, environment, scratch).finish().status == 0
        return numbers(store)

    return run


@pytest.fixture(scope="session")
def ray_node(tmp_path_factory) -> Iterator[Node]:
    """A Ray with two CPUs that the whole session shares; it is ended by closing its stdin."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    said = tmp_path_factory.mktemp("ray") / "address.txt"
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_node.py"))],
            cwd=ROOT,
            env={**os.environ, **token},
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        address = wait_for(lambda: said.read_text().strip(), "a Ray of our own")
        yield Node(address, token, process.pid)
    finally:
        process.stdin.close()
        process.wait(60)

"""What every end-to-end test gets: suites to run, a command line to run them, a Ray to join."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, Finished, call_warm
from processes import wait_for

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


@dataclass(frozen=True)
class Node:
    """A Ray on this machine: its address, and what a driver needs in its environment."""

    address: str
    environment: dict[str, str]
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
def call(tmp_path, environment) -> Call:
    """The command line with some arguments, to its end."""
    return lambda *arguments: call_warm([str(a) for a in arguments], environment, tmp_path)


@pytest.fixture
def run(call, store) -> Call:
    """`run SUITE --executor inline` into the test's own store."""
    return lambda path, *more: call("run", path, "--results", store, "--executor", "inline", *more)


@pytest.fixture(scope="session")
def ray_node(tmp_path_factory, environment) -> Iterator[Node]:
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
        yield Node(address, {**environment, **token}, process.pid)
    finally:
        process.stdin.close()
        process.wait(60)

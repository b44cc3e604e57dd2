"""How many trial files a second `analysis.load` reads: `python benchmarks/load_many_trials.py N`.

Writes N files of 60 rows in a temporary folder and reads them with `load` and, to compare, with
the plainer ways that pyarrow offers. `load` does more: it checks each file and makes a frame.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from analysis.load import load
from analysis.summary import summarise
from harness.schema import GROUP_KEY, MANIFEST_KEY, PRIMARY_KEY, SCHEMA, SCHEMA_KEY, TRIALS

TASKS = 5
METHODS = 16


def rows() -> list[dict[str, object]]:
    """The 60 rows of one trial of five tasks, without what names the trial."""
    pairs = [(after, on) for after in range(TASKS) for on in range(TASKS)]
    accuracy = [("accuracy", "classifier", after, on) for after, on in pairs if on <= after]
    task_il = [("accuracy_task_il", "classifier", after, on) for after, on in pairs]
    names = ("method_memory_bytes", "parameters", "train_seconds", "eval_seconds")
    cost = [(name, "cost", after, -1) for after in range(TASKS) for name in names]
    return [
        {"metric": metric, "evaluator": evaluator, "after_task": after, "on_task": on}
        for metric, evaluator, after, on in (*accuracy, *task_il, *cost)
    ]


def write(root: Path, trials: int) -> None:
    """A store of this many trials: five seeds of each of 16 methods, then other data sets."""
    (root / TRIALS).mkdir(parents=True)
    lines = rows()
    columns: dict[str, list[object]] = {
        name: [line.get(name) for line in lines] for name in SCHEMA.names
    }
    for name, value in (("value", 0.5), ("train_seconds", 1.5), ("n", 100), ("samples_seen", 3)):
        columns[name] = [value] * len(lines)
    for number in range(trials):
        _write_one(root / TRIALS, number, columns)


def _write_one(folder: Path, number: int, columns: dict[str, list[object]]) -> None:
    trial_id, method = f"{number:016x}", f"method{number % METHODS}"
    named = {
        "trial_id": trial_id,
        "suite": "many",
        "method": method,
        "label": method,
        "dataset": f"set{number // (5 * METHODS)}",
        "distribution": "regular",
        "num_tasks": TASKS,
        "protocol": "fast",
        "seed": number // METHODS % 5,
        "split": "test",
    }
    count = len(columns["metric"])
    same = {name: [value] * count for name, value in named.items()}
    manifest = {
        "trial_id": trial_id,
        "spec": {"protocol": {f"setting{i}": i for i in range(40)}},
        "git": {"revision": "0" * 40, "dirty": False},
        "versions": {f"library{i}": "1.2.3" for i in range(10)},
    }
    metadata = {
        SCHEMA_KEY: b"1",
        GROUP_KEY: f"{number // (5 * METHODS):08x}{number % METHODS:08x}".encode(),
        PRIMARY_KEY: b"classifier",
        MANIFEST_KEY: json.dumps(manifest).encode(),
    }
    table = pa.table({**columns, **same}, schema=SCHEMA.with_metadata(metadata))
    pq.write_table(table, folder / f"{trial_id}.parquet")


def read_table(paths: list[str]) -> int:
    """`read_table` in a pool of threads, metadata kept."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return pa.concat_tables(list(pool.map(pq.read_table, paths))).num_rows


def dataset(paths: list[str]) -> int:
    """One dataset over the list of files: the rows alone."""
    return ds.dataset(paths, schema=SCHEMA, format="parquet").to_table().num_rows


def dataset_with_metadata(paths: list[str]) -> int:
    """The same, and then each file's group."""
    files = ds.dataset(paths, schema=SCHEMA, format="parquet")
    rows_read = files.to_table().num_rows
    for fragment in files.get_fragments():
        fragment.physical_schema.metadata[GROUP_KEY]
    return rows_read


def compare(ways: dict[str, Callable[[], object]], files: int, rounds: int) -> None:
    """Time the ways in turn, round after round, so that other load on the machine hits all alike.

    Prints the median and the range over rounds, of wall time and of this process's CPU time.
    """
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            began, used = time.perf_counter(), time.process_time()
            work()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    print(f"{'':24s} {'files/s: median (range)':>28s} {'CPU us/file: median (range)':>30s}")
    for name in ways:
        speed = sorted(files / seconds for seconds in wall[name])
        cost = sorted(1e6 * seconds / files for seconds in cpu[name])
        print(
            f"{name:24s} {median(speed):12.0f} ({speed[0]:5.0f} - {speed[-1]:5.0f})"
            f" {median(cost):14.0f} ({cost[0]:5.0f} - {cost[-1]:5.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", type=int, nargs="?", default=4000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, arguments.trials)
        paths = [str(path) for path in sorted((root / TRIALS).iterdir())]
        frame = load(root)
        print(
            f"rows {len(frame)}, {frame.memory_usage(deep=True).sum() / 2**20:.0f} MiB as a frame"
        )
        ways: dict[str, Callable[[], object]] = {
            "load": lambda: load(root),
            "read_table, threads": lambda: read_table(paths),
            "dataset": lambda: dataset(paths),
            "dataset + metadata": lambda: dataset_with_metadata(paths),
            "summarise": lambda: summarise(frame),
        }
        compare(ways, arguments.trials, arguments.rounds)


if __name__ == "__main__":
    main()

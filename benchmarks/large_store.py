"""Tables from 12.75 million rows: `python benchmarks/large_store.py [--keep FOLDER]`.

Makes a store of 10,000 trials of 50 tasks (20 methods, 50 data sets, 10 seeds; 1,275 accuracies
each), merges its files with `compact`, then has a new process load it, aggregate it and print its
tables, and says how long that took and how much memory at most. `--ways` also times other ways to
get CA and FA of every trial from the same file, to compare.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.schema import (
    COMPACT,
    GROUP_KEY,
    MANIFEST_KEY,
    PRIMARY_KEY,
    ROWS_FILE,
    SCHEMA,
    SCHEMA_KEY,
    SUITES,
    TRIALS,
)

TASKS, METHODS, DATASETS, SEEDS = 50, 20, 50, 10


def make(root: Path, datasets: int) -> None:
    """Write the trial files and the suite that wants them."""
    for folder in (TRIALS, SUITES):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    trials: list[dict[str, object]] = []
    for dataset in range(datasets):
        for method in range(METHODS):
            for seed in range(SEEDS):
                number = (dataset * METHODS + method) * SEEDS + seed
                trials.append(_write(root / TRIALS, number, dataset, method, seed, rng))
        print(f"  {(dataset + 1) * METHODS * SEEDS} trials written", flush=True)
    suite = {"schema": 1, "suite": "large", "metrics": [], "trials": trials}
    (root / SUITES / "large.json").write_text(json.dumps(suite))


def _write(
    folder: Path, number: int, dataset: int, method: int, seed: int, rng: np.random.Generator
) -> dict[str, object]:
    after, on = np.nonzero(np.tri(TASKS, dtype=bool))
    count = len(after)
    who: dict[str, object] = {
        "trial_id": f"{number:016x}",
        "method": f"method{method}",
        "label": f"method{method}",
        "dataset": f"set{dataset}",
        "distribution": "regular",
        "num_tasks": TASKS,
        "protocol": "class_incremental",
        "seed": seed,
    }
    named = {
        **who,
        "suite": "large",
        "split": "test",
        "evaluator": "classifier",
        "metric": "accuracy",
        "condition": None,
        "n": 100,
    }
    columns = {name: pa.array([value] * count) for name, value in named.items()}
    level = 0.3 + 0.02 * method
    numbers = {
        "after_task": after,
        "on_task": on,
        "value": np.round(rng.normal(level, 0.02, count).clip(0, 1), 4),
        "samples_seen": 500 * (after + 1),
        "train_seconds": rng.random(count),
    }
    columns |= {name: pa.array(values) for name, values in numbers.items()}
    group = f"{dataset:08x}{method:08x}"
    manifest = {
        "trial_id": who["trial_id"],
        "group": group,
        "primary": "classifier",
        "suite": "large",
        "label": who["label"],
        "dataset_label": who["dataset"],
        "protocol_name": "class_incremental",
        "spec": {"seed": seed, "num_tasks": TASKS, **{f"setting{i}": i for i in range(60)}},
        "git": {"revision": "0" * 40, "dirty": False},
        "versions": {f"library{i}": "1.2.3" for i in range(10)},
    }
    metadata = {
        SCHEMA_KEY: b"1",
        GROUP_KEY: group.encode(),
        PRIMARY_KEY: b"classifier",
        MANIFEST_KEY: json.dumps(manifest).encode(),
    }
    table = pa.table([columns[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names], SCHEMA)
    pq.write_table(table.replace_schema_metadata(metadata), folder / f"{who['trial_id']}.parquet")
    return {**who, "group": group, "primary": "classifier", "settings": {"protocol.lr": 0.1}}


def tables(root: Path) -> None:
    """Load, aggregate and print; then what it took."""
    from rich.console import Console

    from analysis.load import read
    from analysis.terminal import terminal_tables

    began = time.perf_counter()
    results = read(root)
    loaded = time.perf_counter()
    console = Console(width=120)
    for table in terminal_tables(results):
        console.print(table)
    done = time.perf_counter()
    print(
        f"{len(results.rows):,} rows: load {loaded - began:.1f} s, aggregate and print "
        f"{done - loaded:.1f} s, peak {peak_gb():.2f} GB",
        file=sys.stderr,
    )


def peak_gb() -> float:
    """Most memory that this process has held; unlike `getrusage`, not that of its parent."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e9 if found else float("nan")


def ways(root: Path) -> None:
    """CA and FA of every trial, computed in other ways."""
    (part,) = (root / COMPACT).iterdir()
    path = part / ROWS_FILE

    def arrow() -> int:
        table = pq.read_table(path, columns=["trial_id", "after_task", "value"])
        per_task = table.group_by(["trial_id", "after_task"]).aggregate([("value", "mean")])
        return per_task.group_by("trial_id").aggregate([("value_mean", "mean")]).num_rows

    def duck() -> int:
        import duckdb  # type: ignore[import-not-found]  # not a dependency: to compare alone

        query = (
            "select trial_id, avg(m) from (select trial_id, after_task, avg(value) as m "
            f"from '{path}' where metric = 'accuracy' group by all) group by all"
        )
        return len(duckdb.connect().execute("set threads=2").execute(query).fetchall())

    def ours() -> int:
        from analysis.load import load
        from analysis.summary import summarise

        return len(summarise(load(root)))

    known: dict[str, Callable[[], int]] = {"arrow": arrow, "duckdb": duck, "summarise": ours}
    for name, way in known.items():
        try:
            with timed(name):
                way()
        except ImportError as error:
            print(f"{name}: left out: {error}")


@contextmanager
def timed(name: str) -> Generator[None]:
    began = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=DATASETS, help="200 trials each")
    parser.add_argument("--keep", type=Path, help="make the store here, or use the one that is")
    parser.add_argument("--ways", action="store_true")
    parser.add_argument("--tables", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tables:
        tables(arguments.tables)
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.keep or Path(scratch) / "store"
        if not root.exists():
            with timed("make"):
                make(root, arguments.datasets)
            from harness.compact import compact  # here, since it loads torch and tables do without
            from harness.store import Store

            with timed("compact"):
                done = compact(Store(root))
            print(f"  {done.before / 1e6:.0f} MB in {done.files} files, {done.after / 1e6:.0f} MB")
        with timed("a process that prints the tables"):
            command = [sys.executable, __file__, "--tables", str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if arguments.ways:
            ways(root)


if __name__ == "__main__":
    main()

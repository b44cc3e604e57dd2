"""`search` from the command line: what it tries, stops, stores and writes, whatever happens."""

import json
import os
import re
import shutil
import signal

import pyarrow.parquet as pq
import pytest
from command_line import start_warm
from processes import checkpoint, descendants, holder, wait_for
from stored import files, manifests, numbers

SEARCH = {
    "method": "er",
    "protocol": "class_incremental",
    "dataset": "digits",
    "num_tasks": 5,
    "space": {"lr": {"log_uniform": [1e-3, 10]}},
    "set": {"epochs": 1, "buffer_size": 50, "backbone": {"name": "mlp", "hidden": [32]}},
    "trials": 6,
    "test_seeds": [0, 1],
}


def write(folder, **keys):
    path = folder / "lr.yaml"
    path.write_text(json.dumps({**SEARCH, **keys}))
    return str(path)


@pytest.fixture
def file(tmp_path):
    return lambda **keys: write(tmp_path, **keys)


@pytest.fixture
def search(call, store):
    return lambda path, *more: call(
        "search", path, "--results", store, "--executor", "inline", *more
    )


@pytest.fixture(scope="module")
def searched(environment, tmp_path_factory):
    """A search of six configurations, run once: its file, its store, what it said."""
    folder = tmp_path_factory.mktemp("searched")
    path, store = write(folder), folder / "results"
    command = ["search", path, "--results", str(store), "--executor", "inline"]
    done = start_warm(command, environment, tmp_path_factory.mktemp("process")).finish()
    assert done.status == 0, done.err
    return path, store, done.out


def tried(store):
    """What was tried, without what measures the machine."""
    (study,) = json.loads((store / "searches" / "lr.json").read_text())["studies"]
    return [{k: v for k, v in one.items() if k != "seconds"} for one in study["tried"]]


def test_a_search_stores_every_rung_and_writes_a_suite_that_gives_the_value_once_more(
    searched, call, tmp_path
):
    _, store, out = searched
    found = tried(store)
    assert len(found) == 6
    assert {one["end"] for one in found} == {"done", "stopped"}
    stored = numbers(store)
    assert {trial_id for one in found for trial_id in one["trial_ids"]} == stored.keys()
    for one in found:
        (trial_id,) = one["trial_ids"]
        rows = [r for r in stored[trial_id] if r["metric"] == "accuracy"]
        assert {row["split"] for row in stored[trial_id]} == {"validation"}
        assert {row["after_task"] for row in rows} == set(range(one["tasks"]))
        assert manifests(store)[trial_id]["spec"].get("stop_after", 5) == one["tasks"]
    assert not files(store, "checkpoints")
    assert not files(store, "failures")

    best = max((one for one in found if one["value"]), key=lambda one: one["value"])
    assert f"FA {100 * best['value']:.2f} % on validation" in out
    suite = store / "lr_tuned.yaml"
    assert str(suite) in out
    other = tmp_path / "other"
    ran = call("run", suite, "--results", other, "--executor", "inline")
    assert ran.status == 0, ran.err
    again = numbers(other)
    assert again.keys() - stored.keys() == again.keys() - {best["trial_ids"][0]}
    assert again[best["trial_ids"][0]] == stored[best["trial_ids"][0]]
    assert len(again) == 3
    assert f"{100 * best['value']:.2f}" in ran.out
    splits = {rows[0]["seed"]: rows[0]["split"] for rows in again.values()}
    assert splits == {100: "validation", 0: "test", 1: "test"}


def test_a_search_that_is_killed_ends_with_the_same_trials(search, begin, file, store, tmp_path):
    path = file(set={**SEARCH["set"], "epochs": 8})
    assert search(path).status == 0
    undisturbed, whole = tried(store), numbers(store)

    other = tmp_path / "other"
    command = ["search", path, "--results", other, "--executor", "inline"]
    killed = begin(*command)
    document = other / "searches" / "lr.json"
    wait_for(lambda: document.exists() and len(tried(other)) >= 3, "three configurations")
    killed.tell(signal.SIGKILL)
    killed.finish()
    begun = len(numbers(other))
    assert begun < 6
    assert begin(*command).finish().status == 0
    assert tried(other) == undisturbed
    assert numbers(other) == whole

    again = begin(*command).finish()
    assert again.status == 0
    assert "[" not in again.out  # nothing was run


def test_the_same_on_ray(begin_cold, searched, tmp_path, ray_node):
    path, store, _ = searched
    other = tmp_path / "other"
    command = ["search", path, "--results", str(other), "--workers", "1"]
    done = begin_cold(*command, "--address", ray_node.address, **ray_node.token).finish()
    assert done.status == 0, done.err
    assert tried(other) == tried(store)
    assert numbers(other) == numbers(store)
    assert not files(other, "checkpoints")
    assert not (other / ".tune").exists()


def test_what_diverges_counts_and_does_not_end_the_search(search, file, store):
    path = file(
        space={"lr": {"choices": [0.1, 1.0e30]}}, scheduler="none", try_defaults=False, trials=9
    )
    done = search(path)
    assert done.status == 0, done.err
    ends = {one["configuration"]["lr"]: one["end"] for one in tried(store)}
    assert ends == {0.1: "done", 1e30: "diverged"}
    assert "diverged: " in done.out
    assert "2 configurations of lr" in done.out


def test_without_a_good_configuration_no_suite_is_written(search, file, store):
    path = file(space={"lr": {"choices": [1.0e29, 1.0e30]}}, scheduler="none")
    done = search(path)
    assert done.status == 1
    assert "no configuration ran to its end; 2 diverged" in done.out
    assert not (store / "lr_tuned.yaml").exists()


def test_a_report_of_a_search_shows_what_was_tried(searched, call, tmp_path):
    _, store, _ = searched
    found = tried(store)
    assert call("report", store, "--out", tmp_path).status == 0
    page = (tmp_path / "index.html").read_text()
    for text in ("Search lr", "What the budget bought", "Best settings", "All configurations"):
        assert text in page
    for one in found:
        assert f"{100 * list(one['values'].values())[-1]:.2f}" in page
    figures = sorted((tmp_path / "figures").glob("*.png"))
    assert [path.name.split("-")[0] for path in figures] == ["search_history", "search_slices"]
    verified = call("report", store, "--verify", figures[0])
    assert (verified.status, "byte for byte" in verified.out) == (0, True)
    assert "wanted by no suite" not in page


def test_methods_of_a_suite_get_equal_budgets_and_a_table_of_what_it_bought(call, suite, store):
    path = suite(methods=["finetune", "er"], set={"lr": 0.05})
    more = ["--trials", "3", "--set", "scheduler=none", "--executor", "inline"]
    done = call("search", "--suite", path, "--results", store, *more)
    assert done.status == 0, done.err
    lines = [re.sub(r" +", " ", line) for line in done.out.splitlines()]
    assert sum("3 configurations of " in line for line in lines) == 2
    assert sum("3 done; 3.0 trainings of 3" in line for line in lines) == 2
    assert call("report", store).status == 0
    table = (store / "report" / "tables" / "search-tiny-bought.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in table[1:]] == [
        ["finetune", "digits/5"],
        ["er", "digits/5"],
    ]
    ran = call("run", store / "tiny_tuned.yaml", "--results", store, "--executor", "inline")
    assert ran.status == 0, ran.err
    assert "6 trials, 4 to run" in ran.out  # the search's own are there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "name one SEARCH.yaml, or a suite by --suite"),
        (["search", "FILE", "--suite", "FILE"], "name one SEARCH.yaml, or a suite by --suite"),
        (["search", "FILE", "--set", "space={}"], "space: empty"),
        (["search", "FILE", "--trials", "0"], "trials: must be at least 1"),
        (
            ["search", "FILE", "--executor", "inline", "--set", "resources={cpu: 999}"],
            "resources: a trial asks for cpu 999, but this machine has",
        ),
        (["search", "FILE", "--executor", "inline", "--workers", "2"], "one configuration at a"),
        (["search", "nofile.yaml"], "nofile.yaml: no such file"),
    ],
)
def test_one_clear_message_before_anything_starts(call, file, store, arguments, message):
    path = file()
    words = [path if word == "FILE" else word for word in arguments]
    done = call(*words, "--results", store)
    assert done.status == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(store.glob("trials/*"))


def test_two_searches_of_one_name_do_not_run_at_once(begin, call, file, store):
    path = file(set={**SEARCH["set"], "epochs": 30})
    command = ["search", path, "--results", store, "--executor", "inline"]
    first = begin(*command)
    wait_for(lambda: (store / "searches" / "lr.json").exists(), "the first search")
    second = call(*command)
    first.tell(signal.SIGKILL)
    first.finish()
    assert second.status == 2
    assert "another process is at the search lr" in second.err


def test_a_compacted_store_of_a_search_says_the_same(searched, search, call, store):
    path, whole, _ = searched
    shutil.copytree(whole, store)
    before = tried(store)
    assert call("compact", store).status == 0
    again = search(path, "--trials", "8")
    assert again.status == 0, again.err
    assert tried(store)[:6] == before
    assert len(tried(store)) == 8
    assert len(pq.read_table(next(store.glob("compact/*/trials.parquet")))) == 6


def test_a_worker_that_is_lost_costs_a_task_and_no_more(begin_cold, search, file, store, tmp_path):
    path = file(set={**SEARCH["set"], "epochs": 25}, trials=1)
    other = tmp_path / "other"
    running = begin_cold("search", path, "--results", str(other), "--workers", "1")
    trial_id = checkpoint(other, 1)
    lock = other / "locks" / trial_id
    family = descendants(running.pid)
    os.kill(wait_for(lambda: holder(lock, family), "the worker"), signal.SIGKILL)
    assert search(path).status == 0
    done = running.finish()
    assert done.status == 0, done.err
    assert "again er digits/5 #0: its worker was lost" in done.out
    assert tried(other) == tried(store)
    assert manifests(other)[trial_id]["attempts"] == 2

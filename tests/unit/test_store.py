"""The store: a file that exists is complete, and none is ever written twice."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields

import pyarrow.parquet as pq
import pytest

from harness import schema
from harness.errors import UserError
from harness.schema import SCHEMA, Row
from harness.store import Failure, Store

TRIAL = "0123456789abcdef"
MANIFEST = {"trial_id": TRIAL, "group": "g" * 16, "primary": "classifier", "spec": {"seed": 3}}


def row(value=0.5, **changes):
    names = {
        "trial_id": TRIAL,
        "suite": "mine",
        "method": "er",
        "label": "er",
        "dataset": "digits",
        "distribution": "regular",
        "num_tasks": 5,
        "protocol": "plain",
        "seed": 3,
        "split": "test",
        "after_task": 0,
        "on_task": 0,
        "evaluator": "classifier",
        "metric": "accuracy",
        "condition": None,
        "value": value,
        "n": 90,
        "samples_seen": 300,
        "train_seconds": 1.5,
    }
    return Row(**{**names, **changes})


ROWS = [row(1 / 3), row(0.25, on_task=1, condition="gaussian_noise/3"), row(1e9, on_task=-1, n=0)]


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "results")
    made.create()
    return made


def failure(**changes):
    values = {
        "trial_id": TRIAL,
        "kind": "user",
        "message": "no",
        "traceback": "Traceback ...",
        "attempt": 1,
        "time": "2026-01-01T00:00:00+00:00",
        "title": "er digits/5 seed 3",
    }
    return Failure(**{**values, **changes})


def test_what_was_written_is_read_back(store):
    assert store.write(ROWS, MANIFEST)
    table, manifest = store.read(TRIAL)
    assert table.to_pylist() == [asdict(one) for one in ROWS]
    assert table.schema.equals(SCHEMA)
    assert manifest == MANIFEST


def test_the_table_has_the_columns_of_the_contract_in_order():
    contract = (
        "trial_id, suite, method, label, dataset, distribution, num_tasks, protocol, seed, split, "
        "after_task, on_task, evaluator, metric, condition, value, n, samples_seen, train_seconds"
    )
    assert ", ".join(SCHEMA.names) == contract
    assert [field.name for field in fields(Row)] == SCHEMA.names


def test_a_file_carries_its_provenance_in_its_metadata(store):
    store.write(ROWS, MANIFEST)
    metadata = pq.read_schema(store.path(TRIAL)).metadata
    assert metadata[schema.SCHEMA_KEY] == b"1"
    assert metadata[schema.GROUP_KEY] == b"g" * 16
    assert metadata[schema.PRIMARY_KEY] == b"classifier"
    assert json.loads(metadata[schema.MANIFEST_KEY]) == MANIFEST


def test_a_second_result_changes_nothing(store):
    assert store.write(ROWS, MANIFEST)
    first = store.path(TRIAL).read_bytes()
    assert not store.write([row(0.9)], MANIFEST)
    assert store.path(TRIAL).read_bytes() == first


def test_without_hard_links_a_result_is_stored_once_all_the_same(store, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert store.write(ROWS, MANIFEST)
    assert not store.write([row(0.9)], MANIFEST)
    assert store.read(TRIAL)[0].num_rows == len(ROWS)


def test_of_many_writers_one_wins_and_leaves_a_whole_file(store):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write([row(float(i))] * 50, MANIFEST), range(24)))
    assert sum(won) == 1
    table, _ = store.read(TRIAL)
    assert table.column("value").to_pylist() == [float(won.index(True))] * 50


def test_nothing_but_results_is_left_in_the_folder_of_results(store):
    store.write(ROWS, MANIFEST)
    store.write(ROWS, MANIFEST)
    assert [*store.path(TRIAL).parent.iterdir()] == [store.path(TRIAL)]


def test_stored_lists_finished_trials_alone(store):
    assert store.stored() == frozenset()
    assert not store.has(TRIAL)
    (store.path(TRIAL).parent / ".half.tmp").touch()
    store.write(ROWS, MANIFEST)
    assert store.stored() == {TRIAL}
    assert store.has(TRIAL)


def test_a_store_that_is_not_there_holds_nothing(tmp_path):
    store = Store(tmp_path / "nowhere")
    assert store.stored() == frozenset()
    assert store.failures() == {}
    with pytest.raises(UserError, match="no such trial is stored"):
        store.read(TRIAL)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_file_cut_short_is_an_error_that_names_it(store, size):
    store.write(ROWS, MANIFEST)
    path = store.path(TRIAL)
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    with pytest.raises(UserError, match=f"{TRIAL}.*truncated"):
        store.check(TRIAL)
    with pytest.raises(UserError, match=f"{TRIAL}.*damaged"):
        store.read(TRIAL)


def test_a_whole_file_passes_the_check(store):
    store.write(ROWS, MANIFEST)
    store.check(TRIAL)


@pytest.mark.parametrize("version", [b"0", b"2", None])
def test_a_file_of_another_version_is_an_error_that_names_both(store, version):
    store.write(ROWS, MANIFEST)
    table = pq.read_table(store.path(TRIAL))
    kept = {k: v for k, v in table.schema.metadata.items() if k != schema.SCHEMA_KEY}
    changed = kept if version is None else {**kept, schema.SCHEMA_KEY: version}
    pq.write_table(table.replace_schema_metadata(changed), store.path(TRIAL))
    said = "unknown" if version is None else version.decode()
    with pytest.raises(UserError, match=f"{TRIAL}.*version {said}, this program writes 1"):
        store.read(TRIAL)


def test_a_parquet_file_from_elsewhere_is_an_error_that_names_it(store):
    store.write(ROWS, MANIFEST)
    table = pq.read_table(store.path(TRIAL)).replace_schema_metadata(None)
    pq.write_table(table, store.path(TRIAL))
    with pytest.raises(UserError, match=TRIAL):
        store.read(TRIAL)


def test_a_folder_that_cannot_be_written_is_the_user_s_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--results .*cannot be written"):
        Store(tmp_path / "file" / "results").create()


def test_a_failure_is_noted_under_the_words_of_the_contract(store):
    store.fail(failure(kind="out of memory", attempt=2))
    note = json.loads((store.root / "failures" / f"{TRIAL}.json").read_text())
    assert note["class"] == "out of memory"
    assert note["traceback"] == "Traceback ..."
    assert note["attempt"] == 2
    assert "kind" not in note


def test_a_failure_is_read_back_replaced_and_cleared(store):
    store.fail(failure())
    assert store.failures() == {TRIAL: failure()}
    store.fail(failure(attempt=2))
    assert store.failures()[TRIAL].attempt == 2
    store.clear_failure(TRIAL)
    store.clear_failure(TRIAL)
    assert store.failures() == {}


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null"])
def test_a_damaged_note_is_as_good_as_none(store, text):
    (store.root / "failures" / f"{TRIAL}.json").write_text(text)
    assert store.failures() == {}


def test_a_suite_s_list_is_replaced_whole(store):
    store.write_suite("mine", {"trials": [1]})
    store.write_suite("mine", {"trials": [2]})
    folder = store.root / "suites"
    assert [*folder.iterdir()] == [folder / "mine.json"]
    assert json.loads((folder / "mine.json").read_text()) == {"trials": [2]}


def test_a_trial_can_be_claimed_by_one_at_a_time(store):
    with store.claim(TRIAL) as mine:
        assert mine
        with store.claim(TRIAL) as yours:
            assert not yours
        with store.claim("another") as other:
            assert other
    with store.claim(TRIAL) as again:
        assert again


def test_a_claim_ends_with_an_error(store):
    with pytest.raises(KeyError), store.claim(TRIAL):
        raise KeyError
    with store.claim(TRIAL) as again:
        assert again


HOLDER = """
import sys, time
from pathlib import Path
from harness.store import Store
with Store(Path(sys.argv[1])).claim(sys.argv[2]) as claimed:
    print(claimed, flush=True)
    time.sleep(60)
"""


def test_a_claim_keeps_other_processes_out_until_its_own_is_killed(store):
    arguments = [sys.executable, "-c", HOLDER, str(store.root), TRIAL]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        with store.claim(TRIAL) as claimed:
            assert not claimed
        os.kill(holder.pid, signal.SIGKILL)
    with store.claim(TRIAL) as claimed:
        assert claimed

"""Many trial files in one: the same results, whoever asks and whatever happens meanwhile."""

import fcntl
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stores import Trial, rows, write_suite, write_trial

from analysis import load as loading
from analysis.load import StoreError, load, manifest, read
from analysis.tables import markdown, result_tables
from harness import compact as compacting
from harness import schema
from harness.compact import compact
from harness.errors import UserError
from harness.store import Store

A = np.full((3, 3), 0.5)
WANTED = [
    Trial(method, seed, dataset=dataset)
    for dataset in ("digits", "glyphs")
    for method in ("er", "gem")
    for seed in range(3)
]


def fill(root, trials=WANTED):
    for number, trial in enumerate(trials):
        lines = rows(trial, A + number / 100, before=(0.1, 0.2, 0.3))
        lines += rows(trial, np.full((3, 3), number), metric="train_seconds", evaluator="cost")
        write_trial(root, trial, lines)
    write_suite(root, WANTED)


@pytest.fixture
def root(tmp_path):
    fill(tmp_path)
    return tmp_path


def crash(*args):
    raise KeyError


def ordered(frame):
    """The rows of a frame in one order, as plain values."""
    plain = frame.astype({name: object for name in frame if frame[name].dtype == "category"})
    keys = ["trial_id", "metric", "after_task", "on_task"]
    return plain.sort_values(keys, ignore_index=True)


def test_the_rows_stay_the_same(root):
    before, files = load(root), list((root / schema.TRIALS).iterdir())
    done = compact(Store(root))
    assert (done.trials, done.files) == (12, len(files)) == (12, 12)
    assert list((root / schema.TRIALS).iterdir()) == []
    assert len(list((root / schema.COMPACT).iterdir())) == 1
    after = load(root)
    pd.testing.assert_frame_equal(ordered(before), ordered(after), check_dtype=False)
    assert list(after.columns) == list(before.columns)
    assert [str(kind) for kind in after.dtypes] == [str(kind) for kind in before.dtypes]


def test_tables_and_states_stay_the_same(root):
    before = read(root)
    digests = [replace(line, numbers=line.digest) for line in before.provenance]
    compact(Store(root))
    after = read(root)
    assert [markdown(t) for t in result_tables(before)] == [
        markdown(t) for t in result_tables(after)
    ]
    pd.testing.assert_frame_equal(before.trials, after.trials)
    made = [
        sorted((line.trial_id, line.revision, line.versions, line.digest) for line in one)
        for one in (digests, after.provenance)
    ]
    assert made[0] == made[1]


def test_rows_of_one_table_lie_together(root):
    found = pq.read_table(compact(Store(root)).part / schema.INDEX_FILE)
    assert found["trial_id"].to_pylist() == [trial.trial_id for trial in WANTED]


def test_trials_are_never_parted_between_row_groups(root, monkeypatch):
    monkeypatch.setattr(compacting, "ROWS_A_GROUP", 50)
    before = load(root)
    part = compact(Store(root)).part
    with pq.ParquetFile(part / schema.ROWS_FILE) as file:
        assert file.num_row_groups == 6  # two trials of 21 rows each
        groups = [file.read_row_group(g)["trial_id"].unique().to_pylist() for g in range(6)]
    assert len({name for group in groups for name in group}) == sum(map(len, groups)) == 12
    pd.testing.assert_frame_equal(ordered(before), ordered(load(root)), check_dtype=False)


def test_the_store_knows_what_is_merged(root):
    store, who = Store(root), WANTED[4]
    table, document = store.read(who.trial_id)
    compact(store)
    assert store.has(who.trial_id)
    assert not store.has("0" * 16)
    assert store.stored() == {trial.trial_id for trial in WANTED}
    store.check(who.trial_id)
    again, same = store.read(who.trial_id)
    assert again.to_pylist() == table.to_pylist()
    assert same == document == manifest(root, who.trial_id)
    assert store.manifests([who.trial_id]) == {who.trial_id: document}
    with pytest.raises(UserError, match="no such trial is stored"):
        store.read("0" * 16)


def test_a_merged_store_goes_on(root):
    compact(Store(root))
    more = [Trial("er", seed) for seed in (3, 4)]
    fill(root, more)
    assert load(root)["trial_id"].nunique() == 14
    assert Store(root).stored() == {trial.trial_id for trial in (*WANTED, *more)}
    done = compact(Store(root))
    assert (done.trials, done.files, done.old_parts) == (14, 2, 1)
    assert len(list((root / schema.COMPACT).iterdir())) == 1
    assert load(root)["trial_id"].nunique() == 14


def test_a_second_time_there_is_nothing_to_do(root):
    first = compact(Store(root))
    assert compact(Store(root)).part is None
    assert [path.name for path in (root / schema.COMPACT).iterdir()] == [first.part.name]


def test_a_crash_before_the_files_go_loses_nothing_and_counts_nothing_twice(root, monkeypatch):
    before = load(root)
    with monkeypatch.context() as patched:
        patched.setattr(compacting, "_remove", crash)
        with pytest.raises(KeyError):
            compact(Store(root))
    assert len(list((root / schema.TRIALS).iterdir())) == 12
    pd.testing.assert_frame_equal(ordered(before), ordered(load(root)), check_dtype=False)
    compact(Store(root))
    assert list((root / schema.TRIALS).iterdir()) == []
    pd.testing.assert_frame_equal(ordered(before), ordered(load(root)), check_dtype=False)


def test_a_crash_before_the_part_is_whole_leaves_the_files(root, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(compacting, "_check", crash)
        with pytest.raises(KeyError):
            compact(Store(root))
    (root / schema.COMPACT / ".half").mkdir()
    assert load(root)["trial_id"].nunique() == 12
    compact(Store(root))
    assert len(list((root / schema.COMPACT).iterdir())) == 1


def test_what_reads_back_differently_is_not_kept(root, monkeypatch):
    monkeypatch.setattr(compacting, "digest", lambda table: str(id(table)))
    with pytest.raises(OSError, match="reads back differently"):
        compact(Store(root))
    assert len(list((root / schema.TRIALS).iterdir())) == 12
    assert list((root / schema.COMPACT).iterdir()) == []


def test_two_results_of_one_trial_that_differ_are_refused(root):
    compact(Store(root))
    write_trial(root, WANTED[0], rows(WANTED[0], A + 0.3))
    message = f"two results of trial {WANTED[0].trial_id} differ"
    with pytest.raises(StoreError, match=f"{message}: one in .*trials, one in .*compact"):
        load(root)
    with pytest.raises(UserError, match=message):
        compact(Store(root))


def test_results_that_differ_in_times_alone_are_one(root):
    compact(Store(root))
    slower = rows(WANTED[0], A, before=(0.1, 0.2, 0.3))
    slower += rows(WANTED[0], A + 7, metric="train_seconds", evaluator="cost")
    write_trial(root, WANTED[0], slower)
    assert load(root)["trial_id"].nunique() == 12
    assert len(load(root)) == 12 * 21
    compact(Store(root))
    assert list((root / schema.TRIALS).iterdir()) == []


def test_two_parts_with_the_same_trials_count_once(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    fill(other, WANTED[:5])
    theirs, _ = compact(Store(other)).part, compact(Store(root))
    shutil.copytree(theirs, root / schema.COMPACT / theirs.name)
    assert len(load(root)) == 12 * 21
    assert compact(Store(root)).trials == 12
    assert len(list((root / schema.COMPACT).iterdir())) == 1


def test_a_damaged_file_is_named_and_nothing_changes(root):
    path = Store(root).path(WANTED[3].trial_id)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{path.name}: damaged"):
        compact(Store(root))
    assert len(list((root / schema.TRIALS).iterdir())) == 12


def test_a_file_damaged_among_its_rows_is_named_and_nothing_changes(root):
    path = Store(root).path(WANTED[3].trial_id)
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}: damaged"):
        compact(Store(root))
    assert len(list((root / schema.TRIALS).iterdir())) == 12
    assert list((root / schema.COMPACT).iterdir()) == []


def test_files_of_another_version_or_shape_are_not_merged(root):
    extra = Trial("si")
    write_trial(root, extra, rows(extra, A), metadata={schema.SCHEMA_KEY: b"99"})
    with pytest.raises(UserError, match="schema version 99"):
        compact(Store(root))


@pytest.mark.parametrize("name", [schema.ROWS_FILE, schema.INDEX_FILE])
def test_a_damaged_part_is_named(root, name):
    path = compact(Store(root)).part / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{name}: damaged"):
        load(root)


def test_a_part_of_another_version_is_named(root):
    path = compact(Store(root)).part / schema.INDEX_FILE
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({schema.SCHEMA_KEY: b"2"}), path)
    with pytest.raises(StoreError, match="newer version"):
        load(root)
    with pytest.raises(UserError, match="schema version 2"):
        Store(root).stored()


def test_files_merged_while_they_are_read_are_read_again(root, monkeypatch):
    real, calls = loading.read_trials, []

    def slow(paths):
        if not calls:
            calls.append(compact(Store(root)))
        return real(paths)

    monkeypatch.setattr(loading, "read_trials", slow)
    assert load(root)["trial_id"].nunique() == 12


def test_two_at_once_are_refused(root):
    (root / "locks").mkdir()
    with (root / "locks" / "compact").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is compacting"):
            compact(Store(root))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder of results"):
        compact(Store(tmp_path / "nowhere"))


def test_an_empty_store_has_nothing_to_merge(tmp_path):
    assert compact(Store(tmp_path)).part is None

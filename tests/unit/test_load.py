"""Reading stores: every row comes back, and damage is named."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import Trial, rows, write_failure, write_suite, write_trial

from analysis.load import Results, StoreError, load, manifest, read, trials
from harness import schema
from harness.schema import SCHEMA

A = np.array([[0.9, 0.2], [0.6, 0.8]])


def trial(seed: int = 0, **kwargs) -> Trial:
    return Trial("er", seed, num_tasks=2, **kwargs)


def stored(root, which: Trial | None = None, **kwargs):
    which = which or trial()
    return write_trial(root, which, rows(which, A), **kwargs)


def test_every_row_comes_back(tmp_path):
    wanted = [line for seed in range(3) for line in rows(trial(seed), A, before=[0.1, 0.1])]
    for seed in range(3):
        write_trial(tmp_path, trial(seed), rows(trial(seed), A, before=[0.1, 0.1]))
    found = load(tmp_path)
    order = ["seed", "after_task", "on_task"]
    expected = pd.DataFrame(wanted).sort_values(order, ignore_index=True)
    expected["condition"] = np.nan
    plain = found[SCHEMA.names].sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(plain, expected, check_dtype=False, check_categorical=False)


def test_rows_carry_their_group_and_primary_evaluator(tmp_path):
    probed = Trial("climb", num_tasks=2, primary="probe_linear")
    stored(tmp_path)
    stored(tmp_path, probed)
    found = load(tmp_path).drop_duplicates("trial_id").set_index("trial_id")
    assert found.loc[probed.trial_id, "primary"] == "probe_linear"
    assert found.loc[probed.trial_id, "group"] == probed.group
    assert found.loc[trial().trial_id, "group"] == trial().group


def test_repeated_text_is_held_once(tmp_path):
    for seed in range(3):
        stored(tmp_path, trial(seed))
    found = load(tmp_path)
    assert isinstance(found["method"].dtype, pd.CategoricalDtype)
    assert list(found["method"].cat.categories) == ["er"]


def test_more_files_than_a_batch_are_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.trial_files._FILES_A_BATCH", 2)
    for seed in range(5):
        stored(tmp_path, trial(seed, label=f"run{seed}"))
    assert sorted(load(tmp_path)["label"].unique()) == [f"run{seed}" for seed in range(5)]


def test_files_being_written_are_not_read(tmp_path):
    path = stored(tmp_path)
    path.with_name(".half.parquet").write_bytes(b"PAR1")
    path.with_name("_half.parquet").write_bytes(b"PAR1")
    path.with_name("note.txt").write_text("x")
    assert load(tmp_path)["trial_id"].nunique() == 1


def test_a_store_without_trials_is_an_empty_frame(tmp_path):
    found = load(tmp_path)
    assert len(found) == 0
    assert list(found.columns) == [*SCHEMA.names, "group", "primary"]
    assert len(trials(tmp_path)) == 0


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=f"{path.name}: damaged or cut short"):
        load(tmp_path)


def test_a_file_damaged_inside_is_named(tmp_path):
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        load(tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [("99", "newer version"), ("0", "schema 0 is older"), ("one", "not a number")],
)
def test_another_schema_version_is_named(tmp_path, version, message):
    path = stored(tmp_path, metadata={schema.SCHEMA_KEY: version.encode()})
    with pytest.raises(StoreError, match=f"{path.name}.*{message}"):
        load(tmp_path)


def test_a_missing_column_is_named(tmp_path):
    old = pa.schema([field for field in SCHEMA if field.name != "condition"])
    path = stored(tmp_path, table_schema=old)
    with pytest.raises(
        StoreError, match=rf"{path.name}: an older schema without column 'condition'"
    ):
        load(tmp_path)


def test_a_column_of_a_wrong_type_is_named(tmp_path):
    wrong = SCHEMA.set(SCHEMA.get_field_index("seed"), pa.field("seed", pa.string()))
    which = trial()
    lines = [{**vars_of(line), "seed": "many"} for line in rows(which, A)]
    path = stored(tmp_path)
    metadata = pq.read_schema(path).metadata
    pq.write_table(pa.Table.from_pylist(lines, schema=wrong.with_metadata(metadata)), path)
    with pytest.raises(StoreError, match=f"{path.name}: a column has another type"):
        load(tmp_path)


def vars_of(line) -> dict:
    return {name: getattr(line, name) for name in SCHEMA.names}


def test_narrower_numbers_and_further_columns_are_accepted(tmp_path):
    place = SCHEMA.get_field_index("n")
    wider = SCHEMA.set(place, pa.field("n", pa.int16())).append(pa.field("later", pa.string()))
    stored(tmp_path, table_schema=wider)
    found = load(tmp_path)
    assert found["n"].tolist() == [100] * 4
    assert "later" not in found


def test_a_file_of_something_else_is_named(tmp_path):
    path = stored(tmp_path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(StoreError, match=f"{path.name}: not a trial file"):
        load(tmp_path)


def test_a_manifest_that_is_not_json_is_named(tmp_path):
    path = stored(tmp_path, metadata={schema.MANIFEST_KEY: b"{"})
    with pytest.raises(StoreError, match=f"{path.name}: its manifest is not JSON"):
        load(tmp_path)


def test_a_renamed_copy_of_a_trial_is_refused(tmp_path):
    path = stored(tmp_path)
    path.with_name("copy.parquet").write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"copy\.parquet: holds trial .* renamed"):
        load(tmp_path)


def test_the_manifest_of_a_trial_is_what_was_written(tmp_path):
    which = trial(settings={"method.replay_weight": 0.5})
    stored(tmp_path, which)
    found = manifest(tmp_path, which.trial_id)
    assert found["spec"]["method"] == {"name": "er", "settings": {"replay_weight": 0.5}}
    with pytest.raises(StoreError, match="no such trial"):
        manifest(tmp_path, "0" * 16)


def test_wanted_trials_are_done_missing_failed_or_diverged(tmp_path):
    wanted = [trial(seed) for seed in range(5)]
    write_suite(tmp_path, wanted)
    stored(tmp_path, wanted[0])
    write_failure(tmp_path, wanted[1], "diverged", "the loss is not finite")
    write_failure(tmp_path, wanted[2], "out of memory", "first line\nsecond line")
    write_failure(tmp_path, wanted[4], "user", "")
    found = trials(tmp_path)
    assert found["state"].tolist() == ["done", "diverged", "failed", "missing", "failed"]
    assert found["failure"].tolist() == ["", "diverged", "out of memory", "", "user"]


def test_a_failure_shows_its_first_line(tmp_path):
    write_suite(tmp_path, [trial()])
    write_failure(tmp_path, trial(), "user", "first line\nsecond line")
    assert trials(tmp_path)["message"].tolist() == ["first line"]


def test_a_stored_trial_is_done_whatever_failed_before(tmp_path):
    write_suite(tmp_path, [trial()])
    stored(tmp_path)
    write_failure(tmp_path, trial(), "lost", "worker died")
    assert trials(tmp_path)[["state", "failure"]].to_numpy().tolist() == [["done", ""]]


def test_a_damaged_failure_note_leaves_its_trial_missing(tmp_path):
    write_suite(tmp_path, [trial()])
    write_failure(tmp_path, trial(), "user", "x")
    (tmp_path / "failures" / f"{trial().trial_id}.json").write_text("{")
    assert trials(tmp_path)["state"].tolist() == ["missing"]


def test_the_suite_files_order_and_labels_win(tmp_path):
    late = Trial("agem", num_tasks=2)
    stored(tmp_path)
    stored(tmp_path, late)
    write_suite(tmp_path, [trial(label="ours"), late])
    found = trials(tmp_path)
    assert found["label"].tolist() == ["ours", "agem"]


def test_two_suites_may_want_one_trial_under_two_labels(tmp_path):
    stored(tmp_path)
    write_suite(tmp_path, [trial(label="a")], "first")
    write_suite(tmp_path, [trial(label="b")], "second")
    found = trials(tmp_path)
    assert found[["suite", "label"]].to_numpy().tolist() == [["first", "a"], ["second", "b"]]
    assert found["trial_id"].nunique() == 1


def test_without_suite_files_all_stored_trials_count(tmp_path):
    which = trial(settings={"method.replay_weight": 0.5, "protocol.lr": 0.1})
    stored(tmp_path, which)
    stored(tmp_path, trial(1))
    found = trials(tmp_path)
    assert found["state"].tolist() == ["done", "done"]
    assert found["suite"].tolist() == ["demo", "demo"]
    settings = found.loc[found["trial_id"] == which.trial_id, "settings"].iloc[0]
    assert settings["method.replay_weight"] == 0.5
    assert settings["protocol.lr"] == 0.1


def test_a_trial_that_its_suite_no_longer_wants_does_not_count(tmp_path):
    stored(tmp_path, trial(0))
    stored(tmp_path, trial(1))
    write_suite(tmp_path, [trial(0)])
    assert trials(tmp_path)["trial_id"].tolist() == [trial(0).trial_id]
    assert read(tmp_path).unwanted == 1


def test_a_trial_of_a_suite_without_a_file_counts_beside_the_others(tmp_path):
    which = trial(1)
    write_trial(tmp_path, which, rows(which, A, suite="by_hand"))
    write_suite(tmp_path, [trial(0)])
    assert trials(tmp_path)["suite"].tolist() == ["demo", "by_hand"]


def test_reading_all_at_once_agrees_with_reading_parts(tmp_path):
    stored(tmp_path)
    write_suite(tmp_path, [trial(0), trial(1)])
    results = read(tmp_path)
    assert isinstance(results, Results)
    pd.testing.assert_frame_equal(results.rows, load(tmp_path))
    pd.testing.assert_frame_equal(results.trials, trials(tmp_path))
    assert [line.revision for line in results.provenance] == ["0123456789abcdef"]
    assert ("torch", "2.9.0") in results.provenance[0].versions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "not a JSON object"),
        (json.dumps({"schema": 2, "trials": []}), "schema 2"),
        (json.dumps({"trials": []}), "schema None"),
        (json.dumps({"schema": 1, "trials": [{"trial_id": "x"}]}), "trial 0 lacks 'group'"),
    ],
)
def test_a_suite_file_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.json").write_text(content)
    with pytest.raises(StoreError, match=rf"mine\.json: .*{message}"):
        trials(tmp_path)

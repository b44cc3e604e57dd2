"""What a user does with a suite and its store, one trial after the other in one process."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored import files, manifests, numbers, trial_ids

ONE = {"methods": ["finetune"], "seeds": [0]}


def snapshot(store):
    """Bytes and times of everything in a store but its suite files, which say when."""
    kept = [path for path in store.rglob("*") if path.is_file() and path.parent.name != "suites"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}


def test_a_suite_is_run_and_its_table_printed(run, suite, store):
    finished = run(suite())
    assert (finished.status, finished.err) == (0, "")
    assert "tiny: 4 trials, 4 to run" in finished.out
    assert "class_incremental, digits, 5 tasks" in finished.out
    assert f"4 done; stored in {store}" in finished.out
    assert files(store, "trials") == sorted(f"{i}.parquet" for i in trial_ids(store, "tiny"))
    assert not files(store, "checkpoints") + files(store, "locks") + files(store, "failures")


def test_progress_comes_in_plain_lines_where_there_is_no_terminal(run, suite):
    out = run(suite()).out
    assert "[4/4] done er digits/5 seed 1, accuracy " in out
    assert "\x1b" not in out


def test_running_again_does_nothing(run, suite, store):
    path = suite()
    run(path)
    before = snapshot(store)
    finished = run(path)
    assert finished.status == 0
    assert "tiny: 4 trials, 0 to run" in finished.out
    assert snapshot(store) == before


def test_more_seeds_run_the_new_seed_only(run, suite, store):
    path = suite()
    run(path)
    before = snapshot(store)
    finished = run(path, "--set", "seeds=[0, 1, 2]")
    assert "tiny: 6 trials, 2 to run" in finished.out
    after = snapshot(store)
    assert len(after) == 6
    assert {path: after[path] for path in before} == before


def test_only_runs_what_it_names(run, suite, store):
    assert "tiny: 1 trials, 1 to run" in run(suite(), "--only", "method=er", "--only", "seed=1").out
    (found,) = manifests(store).values()
    assert (found["spec"]["method"]["name"], found["spec"]["seed"]) == ("er", 1)


def test_the_same_settings_give_the_same_numbers_in_any_store(run, call, suite, store, tmp_path):
    path = suite()
    run(path)
    call("run", path, "--results", tmp_path / "other", "--executor", "inline")
    assert len(numbers(store)) == 4
    assert numbers(store) == numbers(tmp_path / "other")


def test_a_trial_that_two_suites_want_is_stored_once(run, suite, store):
    run(suite("first"))
    finished = run(suite("second", methods=["er"], seeds=[1, 2]))
    assert "second: 2 trials, 1 to run" in finished.out
    assert len(files(store, "trials")) == 5
    assert files(store, "suites") == ["first.json", "second.json"]


def test_a_method_that_the_protocol_cannot_measure_is_skipped_with_a_reason(run, suite, store):
    finished = run(suite(methods=["finetune", "no_strategy"], seeds=[0]))
    assert finished.status == 0
    assert "skipped no_strategy digits/5 seed 0: no_strategy has no classifier" in finished.out
    assert len(files(store, "trials")) == 1


def test_a_plan_counts_and_forecasts_and_runs_nothing(call, run, suite, store):
    path = suite()
    plan = ("plan", path, "--results", store)
    assert "4 trials to run; no stored durations" in call(*plan).out
    assert not store.exists()
    run(path, "--only", "seed=0")
    half = call(*plan)
    assert half.status == 0
    assert "2 trials to run; about " in half.out
    counts = [line.split("│")[4:8] for line in half.out.splitlines() if line.startswith("│ all")]
    assert [[cell.strip() for cell in row] for row in counts] == [["2", "", "", "2"]]
    run(path)
    assert "nothing to run" in call(*plan).out


def test_a_stored_trial_is_reproduced_to_the_last_digit(call, run, suite, store):
    run(suite(methods=["er"], seeds=[1]))
    (trial_id,) = trial_ids(store, "tiny")
    before = snapshot(store)
    finished = call("reproduce", trial_id, "--results", store)
    assert finished.status == 0
    assert f"all {len(numbers(store)[trial_id])} numbers are equal" in finished.out
    assert snapshot(store) == before


def test_a_number_that_was_changed_in_its_last_digit_is_found_by_reproducing(
    call, run, suite, store
):
    run(suite(**ONE))
    (trial_id,) = trial_ids(store, "tiny")
    path = store / "trials" / f"{trial_id}.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    changed = next(row for row in rows if row["metric"] == "accuracy" and 0 < row["value"] < 1)
    changed["value"] += 1e-15
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    finished = call("reproduce", trial_id, "--results", store)
    assert finished.status == 1
    assert "1 of " in finished.out
    assert f"after_task={changed['after_task']}, on_task={changed['on_task']}" in finished.out


def test_a_trial_that_fails_is_noted_and_its_note_goes_when_it_succeeds(run, suite, store):
    path = suite()
    run(path, "--only", "seed=0")
    victim = trial_ids(store, "tiny")[1]  # finetune, seed 1
    obstacle = store / "checkpoints" / victim
    obstacle.write_text("a file where a folder is needed")
    failed = run(path)
    assert failed.status == 1
    assert "failed finetune digits/5 seed 1" in failed.out
    assert "1 failed" in failed.out
    assert "Traceback" not in failed.out + failed.err
    assert files(store, "failures") == [f"{victim}.json"]
    note = json.loads((store / "failures" / f"{victim}.json").read_text())
    assert "Traceback" in note["traceback"]
    assert victim not in numbers(store)
    assert len(numbers(store)) == 3  # the others went on

    obstacle.unlink()
    assert "1 to run" in (healed := run(path)).out
    assert healed.status == 0
    assert victim in numbers(store)
    assert not files(store, "failures")


def test_a_diverged_trial_counts_as_done_until_a_retry_is_asked_for(call, run, suite, store):
    path = suite(methods=["finetune", {"name": "er", "label": "wild", "set": {"lr": 1e30}}])
    finished = run(path, "--only", "seed=0")
    assert finished.status == 0
    assert "diverged wild digits/5 seed 0" in finished.out
    wild = trial_ids(store, "tiny")[2]  # the second label, seed 0
    note = store / "failures" / f"{wild}.json"
    assert json.loads(note.read_text())["class"] == "diverged"
    assert wild not in numbers(store)

    again = run(path, "--only", "seed=0")
    assert (again.status, "0 to run" in again.out) == (0, True)
    assert "diverged wild" in call("plan", path, "--results", store).out

    retried = run(path, "--only", "seed=0", "--retry", "diverged")
    assert (retried.status, "1 to run" in retried.out) == (0, True)
    assert json.loads(note.read_text())["attempt"] == 2


def test_a_report_holds_tables_figures_and_a_page(call, run, suite, store):
    run(suite())
    finished = call("report", store)
    assert (finished.status, finished.err) == (0, "")
    assert f"report: {store / 'report' / 'index.html'}" in finished.out
    page = (store / "report" / "index.html").read_text()
    assert all(word in page for word in ("finetune", "er", "digits"))
    endings = {name.rpartition(".")[2] for name in files(store, "report")}
    assert endings == {"html", "md", "tex", "csv", "png", "pdf"}


def test_a_report_of_an_unfinished_suite_says_what_is_missing(call, run, suite, store):
    run(suite(), "--only", "seed=0")
    # A paper of which nothing is stored, as figures would take seconds.
    finished = call("report", store, "--paper", "climb", "--out", store.parent / "page")
    assert finished.status == 0
    page = (store.parent / "page" / "index.html").read_text()
    assert "2 missing" in page or "1 missing" in page


def test_a_merged_store_is_planned_run_reported_and_reproduced_as_before(call, run, suite, store):
    path = suite(seeds=[0])
    run(path)
    ids = trial_ids(store, "tiny")
    merged = call("compact", store)
    assert (merged.status, merged.err) == (0, "")
    assert "2 files (" in merged.out
    assert "are now one part of 2 trials" in merged.out
    assert files(store, "trials") == []
    assert "nothing to merge" in call("compact", store).out
    assert "nothing to run" in call("plan", path, "--results", store).out
    assert "tiny: 2 trials, 0 to run" in run(path).out
    assert call("reproduce", ids[0], "--results", store).status == 0
    assert run(suite(seeds=[0, 1])).status == 0
    assert len(files(store, "trials")) == 2
    assert "2 files and 1 parts" in call("compact", store).out


def test_a_report_of_a_paper_and_its_figures_are_as_good_as_the_store(call, run, suite, store):
    run(suite(**ONE, protocol="class_incremental_edd"))
    finished = call("report", store, "--paper", "edd")
    assert (finished.status, finished.err) == (0, "")
    page = (store / "report-edd" / "index.html").read_text()
    assert "Table 1: final accuracy" in page
    assert "python run_benchmark.py run configs/suite/edd_table_a6.yaml" in page
    assert "table_1" in " ".join(files(store, "report-edd"))
    figure = next((store / "report-edd" / "figures").glob("accuracy_curves*.pdf"))
    same = call("report", store, "--verify", figure)
    assert same.status == 0
    assert "byte for byte" in same.out
    run(suite(methods=["finetune"], seeds=[0, 1], protocol="class_incremental_edd"))
    other = call("report", store, "--verify", figure)
    assert other.status == 1
    assert "1 then, 2 now" in other.out


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("methods", "er"),
        ("papers", "climb"),
        ("datasets", "digits"),
        ("protocols", "online_ssl"),
        ("suites", "quickstart"),
        ("evaluators", "probe_linear"),
        ("objectives", "simclr"),
        ("backbones", "resnet18"),
    ],
)
def test_a_list_is_one_bare_name_a_line(call, kind, name):
    finished = call("list", kind)
    names = finished.out.splitlines()
    assert (finished.status, finished.err) == (0, "")
    assert name in names
    assert names == sorted(names)
    assert all(line and line.split() == [line] for line in names)


def test_show_tells_a_methods_paper_and_defaults(call):
    finished = call("show", "er")
    assert finished.status == 0
    assert "Chaudhry" in finished.out
    assert "replay_weight: float = 1.0" in finished.out


def test_checking_an_embedded_data_set_needs_no_files(call):
    finished = call("data", "check", "digits")
    assert finished.status == 0
    assert "digits: 1343 training and 454 test images of 1x8x8, 10 classes: ok" in finished.out

"""Plans: what is left to do, decided before anything runs."""

import pytest

from harness.config import ROOT
from harness.errors import UserError
from harness.run import Request, make_plan

QUICKSTART = ROOT / "configs" / "suite" / "quickstart.yaml"


def test_a_plan_of_a_new_store_runs_everything(tmp_path):
    plan = make_plan(Request(QUICKSTART, tmp_path / "results"))
    assert len(plan.to_run()) == len(plan.trials) == 15
    assert set(plan.states.values()) == {"missing"}
    assert not (tmp_path / "results").exists()


def test_a_trial_under_two_labels_runs_once(tmp_path):
    suite = tmp_path / "twice.yaml"
    suite.write_text(
        "{protocol: class_incremental, methods: [er, {name: er, label: again}],"
        " datasets: [digits], num_tasks: 5, seeds: [0]}"
    )
    plan = make_plan(Request(suite, tmp_path / "results"))
    assert [trial.label for trial in plan.trials] == ["er", "again"]
    assert [trial.label for trial in plan.to_run()] in (["er"], ["again"])


def test_a_results_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="results: not a folder"):
        make_plan(Request(QUICKSTART, tmp_path / "results"))

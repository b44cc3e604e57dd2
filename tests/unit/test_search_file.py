"""Search files and searches over suites: what they ask for, and what is refused beforehand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import CONFIGS, ROOT
from harness.errors import UserError
from harness.grid import expand
from harness.search_file import FOLDER, read_search, search_suite
from harness.study_plan import size_of
from harness.suite import load_suite, suite_of

FILE = """
method: er
protocol: class_incremental
dataset: digits
num_tasks: 5
space:
  lr: {log_uniform: [1e-3, 1]}
set: {epochs: 1, buffer_size: 50, backbone: {name: mlp, hidden: [32]}}
seeds: [100, 101]
"""
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture
def read(tmp_path):
    def make(*assignments, text=FILE):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return read_search(path, assignments)

    return make


def test_every_method_of_the_papers_has_a_search_of_its_own_settings():
    """A method that is added needs none before it is searched."""
    methods = {path.stem for path in (CONFIGS / "method").glob("*.yaml")}
    assert len(methods & {path.stem for path in FILES}) >= 38


def test_the_search_shown_in_the_docs_can_be_searched(tmp_path):
    text = (ROOT / "docs" / "search.md").read_text()
    (shown,) = re.findall(r"```yaml\n(# my_search.yaml.*?)```", text, re.DOTALL)
    path = tmp_path / "my_search.yaml"
    path.write_text(shown)
    (plan,) = read_search(path).plans
    assert list(plan.space) == ["lr", "omega", "examples", "align_criterion"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_search_file_can_be_searched_from_the_methods_own_settings(path):
    (plan,) = read_search(path).plans
    assert plan.default is not None
    if (CONFIGS / "method" / path.name).exists():
        assert plan.method.name == path.stem
        options = replace(plan.options, algorithm="grid")
        assert size_of(replace(plan, options=options)) > 1  # its ranges say how many points


def test_trials_of_a_search_look_at_validation_images_alone(read):
    (plan,) = read().plans
    for trial in plan.trials({"lr": 0.5}):
        protocol = trial.spec.protocol
        assert (protocol["split"], protocol["validation"]) == ("validation", 0.1)
        assert protocol["lr"] == 0.5
        assert [use["name"] for use in protocol["evaluators"]] == ["classifier", "cost"]
        assert trial.protocol_name == "class_incremental (validation)"
    assert [trial.spec.seed for trial in plan.trials({"lr": 0.5})] == [100, 101]


def test_evaluators_of_the_test_are_left_out_and_the_primary_is_always_due(read):
    uses = "evaluators=[{name: classifier, when: last}, confusion, cost]"
    (plan,) = read(uses, "records=[features]", "validation=0.2").plans
    (first, _) = plan.trials({"lr": 0.5})
    assert first.spec.protocol["evaluators"] == [
        {"name": "classifier", "when": "each"},
        {"name": "cost", "when": "each"},
    ]
    assert first.spec.protocol["records"] == []
    assert first.spec.protocol["validation"] == 0.2
    test = suite_of(plan.test_grid({"lr": 0.5}), Path("x.yaml"))
    protocol = expand(test)[0][0].spec.protocol
    assert (protocol["split"], protocol["records"]) == ("test", ["features"])
    assert [use["name"] for use in protocol["evaluators"]] == ["classifier", "confusion", "cost"]


def test_the_first_tasks_alone_are_searched_on_and_all_of_them_tested(read):
    (plan,) = read("first_tasks=2").plans
    assert {trial.spec.first_tasks for trial in plan.trials({"lr": 0.5})} == {2}
    assert plan.tasks == 2
    test, _ = expand(suite_of(plan.test_grid({"lr": 0.5}), Path("x.yaml")))
    assert {trial.spec.first_tasks for trial in test} == {None}
    assert {trial.spec.seed for trial in test} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", ["climb_small", "quickstart"])
def test_without_a_change_the_trials_tested_are_the_suites_own(name):
    """Every level of settings of a suite finds its way into the search."""
    path = CONFIGS / "suite" / f"{name}.yaml"
    assignments = ["er.replay_weight=0.5"] if name == "quickstart" else ["lr=0.05"]
    suite, _ = expand(load_suite(path, assignments))
    own = {trial.trial_id for trial in suite}
    search = search_suite(path, assignments)
    with_own = [plan for plan in search.plans if plan.default is not None]
    found = set()
    for plan in with_own:
        test, _ = expand(suite_of(plan.test_grid(plan.default), path))
        found |= {trial.trial_id for trial in test}
    assert len(with_own) > len(search.plans) / 2
    assert found <= own
    assert len(found) == len(with_own) * len({trial.spec.seed for trial in suite})
    for plan in search.plans:
        chosen = [t.spec for t in suite if (t.label, t.cell) == (plan.method.label, plan.cell)]
        assert {**plan.spec.to_json(), "seed": 0} == {**chosen[0].to_json(), "seed": 0}
    assert len(search.plans) == len({(t.label, t.cell) for t in suite})
    seeds = {trial.spec.seed for trial in suite}
    assert set(search.options.seeds) == {max(seeds) + 1}


def test_a_range_that_is_assigned_replaces_that_of_every_method_that_has_it():
    path = CONFIGS / "suite" / "quickstart.yaml"
    ranges = "space={lr: {uniform: [0.01, 0.02]}, replay_weight: {choices: [1.0, 2.0]}}"
    plans = {plan.method.label: plan.space for plan in search_suite(path, [ranges]).plans}
    assert {(space["lr"].low, space["lr"].high) for space in plans.values()} == {(0.01, 0.02)}
    assert plans["er"]["replay_weight"].values == (1.0, 2.0)
    assert "replay_weight" not in plans["finetune"]


def test_a_suite_gives_all_methods_the_same_options():
    path = CONFIGS / "suite" / "quickstart.yaml"
    search = search_suite(path, ["trials=30", "metric=CA", "budget={trainings: 9}"])
    found = {
        (plan.options.trials, plan.options.metric, plan.options.budget.trainings)
        for plan in search.plans
    }
    assert found == {(30, "CA", 9)}
    assert [plan.name for plan in search.plans] == [
        f"{label} digits/5" for label in ("finetune", "er", "joint", "no_strategy", "replay")
    ]


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["space={}"], "some.yaml: space: empty"),
        (["space={lr: {uniform: [1, 0]}}"], "space: lr: uniform: upside down"),
        (["space={lr: {uniform: [1, 1]}}"], "space: lr: uniform: .* one point"),
        (["space={omga: {uniform: [0, 1]}}"], "space: method er: unknown hyperparameter 'omga'"),
        (["space={replay_wieght: {uniform: [0, 1]}}"], "did you mean 'replay_weight'"),
        (["space={validation: {uniform: [0.1, 0.2]}}"], "validation says what is measured"),
        (["space={lr: {uniform: [-1, 1]}}"], "space: lr: -1.0 does not fit: .*lr"),
        (["space={epochs: {uniform: [1, 2]}}"], "space: epochs: 1.0 does not fit: .*epochs"),
        (["space={batch_size: {integers: [0, 4]}}"], "space: batch_size: 0 does not fit"),
        (["algorithm=grid"], "space: lr: a grid needs points"),
        (["metric=forgetting"], "metric: input should be 'CA' or 'FA', got \"forgetting\""),
        (["method=joint", "stages=last", "metric=CA"], "metric: CA is not measured: joint can be"),
        (["evaluators=[cost]", "primary=cost"], "metric: FA is not measured: the primary"),
        (["method=climb"], "climb has no classifier"),
        (["method=err"], "unknown method 'err'"),
        (["seeds=[0]"], "seeds: 0 is one of test_seeds too"),
        (["seeds=[7, 7]"], "seeds: one is listed twice"),
        (["test_seeds=[]"], "test_seeds: at least one"),
        (["trials=0"], "trials: must be at least 1, got 0"),
        (["eta=1"], "eta: must be at least 2"),
        (["budget={hours: 0}"], "budget: hours must be above 0"),
        (["budget={minutes: 3}"], "budget: unknown key 'minutes'"),
        (["first_tasks=6"], r"first_tasks: must be from 1 to num_tasks \(5\)"),
        (["epoch=3"], "set: method er: unknown hyperparameter 'epoch'; did you mean 'epochs'"),
        (["trails=3"], "unknown hyperparameter 'trails'; did you mean 'trials'"),
        (["resources={cpu: 0}"], "resources: cpu must be above 0"),
        (["num_tasks=3"], "data set digits: "),
    ],
)
def test_what_cannot_be_searched_is_named_before_anything_starts(read, assignments, message):
    with pytest.raises(UserError, match=message):
        read(*assignments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE + "trails: 3\n", "some.yaml: unknown key 'trails'; did you mean 'trials'"),
        (FILE.replace("method: er\n", ""), "some.yaml: method: field required"),
        (FILE + "name: other\n", "a search is named after its file, 'some'"),
    ],
)
def test_a_wrong_key_is_named(read, text, message):
    with pytest.raises(UserError, match=message):
        read(text=text)


def test_a_suite_whose_method_has_no_search_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("harness.search_file.FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"method finetune: no .*finetune.yaml that says its space"):
        search_suite(CONFIGS / "suite" / "quickstart.yaml")


def test_studies_of_one_suite_have_names_of_their_own(tmp_path):
    path = tmp_path / "two.yaml"
    text = """
methods: [er]
datasets: [digits]
num_tasks: [5]
seeds: [0]
set: {epochs: 1, backbone: {name: mlp, hidden: [8]}}
grids:
  - {protocol: class_incremental}
  - {protocol: class_incremental_edd, seeds: [1]}
"""
    path.write_text(text)
    names = [plan.name for plan in search_suite(path).plans]
    assert names == ["er digits/5", "er digits/5 class_incremental_edd"]
    path.write_text(text.replace("class_incremental_edd", "class_incremental"))
    assert len(search_suite(path).plans) == 1  # more seeds of the same
    path.write_text(text.replace("class_incremental_edd", "class_incremental, set: {lr: 0.3}"))
    with pytest.raises(UserError, match="two grids have er digits/5 with different settings"):
        search_suite(path)


def test_what_the_suite_leaves_out_is_not_searched_and_first_tasks_stay(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        """
methods: [er, replay]
datasets: [digits]
num_tasks: [5]
seeds: [0]
first_tasks: 3
grids:
  - {protocol: class_incremental, set: {epochs: 1, backbone: {name: mlp, hidden: [8]}}}
  - {protocol: online_ssl, set: {backbone: {name: cnn, widths: [4, 8]}}}
"""
    )
    plans = search_suite(path).plans
    assert [plan.name for plan in plans] == ["er digits/5 first 3", "replay digits/5 first 3"]
    for plan in plans:
        test, _ = expand(suite_of(plan.test_grid({}), path))
        assert {trial.spec.first_tasks for trial in (*test, *plan.trials({}))} == {3}

"""A study without training: what is chosen, what is stopped, what a kill leaves."""

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner

from analysis.metrics import METRICS
from harness.draw import Tried, draw
from harness.errors import UserError
from harness.execute import Outcome
from harness.rungs import goes_on, rungs, values_by_step
from harness.schema import Row
from harness.search_file import read_search
from harness.store import Store
from harness.study import Study, open_storage
from harness.trial import Progress

FILE = """
method: er
protocol: class_incremental
dataset: digits
num_tasks: 5
space:
  lr: {log_uniform: [1e-4, 10], points: 6}
  replay_weight: {uniform: [0, 2], points: 2}
trials: 12
scheduler: none
"""


@pytest.fixture
def plan(tmp_path):
    def make(*assignments, text=FILE):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return read_search(path, assignments).plans[0]

    return make


@pytest.fixture
def study(plan, tmp_path):
    """A new process that goes on with the same study."""

    def make(*assignments):
        store = Store(tmp_path / "results")
        store.create()
        return Study(plan(*assignments), store, open_storage(store, "some"))

    return make


def trained(study, attempt, curves):
    """Pretend that an attempt's trials were run: `curves` are their accuracies, a list a seed."""
    for trial, curve in zip(attempt.trials, curves, strict=True):
        for done in range(1, len(curve) + 1):
            told = Progress(trial.trial_id, study.plan.tasks, tuple(curve[:done]), float(done))
            if study.progressed(attempt.number, told):
                return
        write(study, trial, curve)
        if study.ended(attempt.number, Outcome(trial.trial_id, "done")):
            return


def write(study, trial, curve):
    """Store a trial whose accuracy on each task is the mean after that task."""
    names = {"suite": "s", "method": "er", "label": "er", "dataset": "digits"}
    names |= {"distribution": "regular", "protocol": "p", "split": "validation", "n": 10}
    rows = [
        Row(
            trial_id=trial.trial_id,
            num_tasks=5,
            seed=trial.spec.seed,
            after_task=after,
            on_task=on,
            evaluator="classifier",
            metric="accuracy",
            condition=None,
            value=value,
            samples_seen=0,
            train_seconds=0.0,
            **names,
        )
        for after, value in enumerate(curve)
        for on in range(after + 1)
    ]
    document = {"trial_id": trial.trial_id, "group": "g", "primary": "classifier"}
    study.store.write(rows, {**document, "seconds": 7.0, "spec": trial.spec.to_json()})


def quality(configuration):
    """Best at lr 0.1, falling with the distance in decades."""
    return max(0.0, 0.9 - 0.2 * abs(math.log10(configuration.get("lr", 1) / 0.1)))


def search(study, until=None):
    """Run a study with made-up results until so many configurations were begun."""
    begun = 0
    while (until is None or begun < until) and (attempt := study.begin()) is not None:
        begun += 1
        trained(study, attempt, [[quality(attempt.configuration)] * 5 for _ in attempt.trials])
    return [one.configuration for one in study.tried()]


# --- the rule -------------------------------------------------------------------------------


def test_the_rule_is_that_of_optunas_pruner_without_bracket():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        memory = optuna.create_study(direction="maximize", pruner=pruner)
        values = rng.integers(0, 10, 15) / 10  # with ties
        for count, value in enumerate(values, start=1):
            trial = memory.ask()
            trial.report(value, 1)
            assert trial.should_prune() != goes_on(value, values[:count], 3)


def test_rungs_are_powers_of_eta_below_the_end():
    assert rungs(1, 3, 20) == [1, 3, 9]
    assert rungs(2, 2, 8) == [2, 4]
    assert rungs(5, 3, 5) == []


@pytest.mark.parametrize("metric", ["CA", "FA"])
def test_the_value_at_the_end_is_the_metric_that_tables_show(metric):
    rng = np.random.default_rng(1)
    matrices = rng.random((3, 5, 5))
    curves = [[float(a[k, : k + 1].mean()) for k in range(5)] for a in matrices]
    found = values_by_step(curves, 5, metric)
    wanted = [METRICS[metric](a, {}) for a in matrices]
    assert found[15] == pytest.approx(np.mean(wanted))
    assert found[5] == pytest.approx(wanted[0])
    # Halfway through the second seed: its mean with the first one's final value.
    partial = METRICS[metric](matrices[1, :2, :2], {})
    assert found[7] == pytest.approx((wanted[0] + partial) / 2)


def test_what_is_not_measured_has_no_value():
    assert values_by_step([(None, None, 0.5)], 3, "FA") == {3: 0.5}
    assert values_by_step([(None, 0.25, 0.5)], 3, "CA") == {}
    assert values_by_step([(0.1, None), (0.5, 0.5)], 2, "FA") == {1: 0.1}


# --- what is chosen -------------------------------------------------------------------------


def test_the_methods_own_settings_come_first(plan):
    chosen = draw(plan(), [])
    assert chosen == {"lr": 0.1, "replay_weight": 1.0}
    assert draw(plan("try_defaults=false"), []) != chosen
    outside = FILE.replace("[1e-4, 10]", "[1, 10]")
    assert plan(text=outside).default is None


def test_settings_of_the_file_for_what_is_searched_come_first(plan):
    assert draw(plan("lr=0.5"), [])["lr"] == 0.5


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_the_same_seed_gives_the_same_configurations_in_one_process_or_many(
    study, plan, tmp_path, algorithm
):
    chosen = (f"algorithm={algorithm}", "trials=8")
    for until in (3, 3, None):
        many = search(study(*chosen), until=until)
    other = Store(tmp_path / "other")
    other.create()
    one = Study(plan(*chosen), other, open_storage(other, "some"))
    assert search(one) == many
    assert len({str(c) for c in many}) == 8
    another = Store(tmp_path / "another")
    another.create()
    seed = Study(plan(*chosen, "search_seed=1"), another, open_storage(another, "some"))
    assert search(seed) != many


def test_tpe_looks_where_it_was_good(plan):
    """Decades between the learning rate and the best one, late and at random before."""
    early, late = [], []
    for seed in range(4):
        chosen, tried = replace_seed(plan("try_defaults=false"), seed), []
        for number in range(25):
            drawn = draw(chosen, tried)
            value = quality(drawn)
            tried.append(Tried(number, drawn, "done", value, {5: value}, (), 5, 0.0, ""))
        away = [abs(math.log10(one.configuration["lr"] / 0.1)) for one in tried]
        early += away[:10]
        late += away[10:]
    assert np.mean(late) < 0.8 * np.mean(early)


def test_a_grid_is_gone_through_once(study):
    found = search(study("algorithm=grid", "trials=100"))
    assert len(found) == 12
    assert found[:2] == [{"lr": 1e-4, "replay_weight": 0.0}, {"lr": 1e-4, "replay_weight": 2.0}]


def test_a_finite_space_ends_the_search_and_nothing_is_tried_twice(study):
    space = "space={outputs: {choices: [all, seen]}, batch_size: {integers: [8, 9]}}"
    found = search(study("method=finetune", space, "trials=30"))
    assert len(found) == 4
    assert len({str(c) for c in found}) == 4


def test_what_diverged_is_the_worst_of_all(plan):
    """However far it came before, tpe stays away from it."""
    chosen = plan("try_defaults=false")

    def tried(number, lr, end, values):
        configuration = {"lr": lr, "replay_weight": 1.0}
        return Tried(number, configuration, end, None, values, (), 1, 0.0, "")

    high = [tried(n, 5 + n / 10, "diverged", {1: 0.9, 2: 0.9}) for n in range(10)]
    low = [tried(10 + n, 0.001 + n / 1e5, "stopped", {1: 0.4 + n / 100}) for n in range(10)]
    drawn = [draw(replace_seed(chosen, seed), [*high, *low])["lr"] for seed in range(20)]
    assert sum(lr < 1 for lr in drawn) >= 18


def replace_seed(plan, seed):
    return replace(plan, options=replace(plan.options, search_seed=seed))


# --- what is stopped ------------------------------------------------------------------------


def test_asha_stops_what_falls_behind_at_a_rung(study, monkeypatch):
    sealed = []
    monkeypatch.setattr("harness.study.seal", lambda trial, *rest: sealed.append(rest[0]) or trial)
    one = study("scheduler=asha", "trials=4")
    curves = [[0.5] * 5, [0.4] * 5, [0.6] * 5, [0.6, 0.6, 0.4, 0.4, 0.4]]
    ends = []
    for curve in curves:
        attempt = one.begin()
        trained(one, attempt, [curve])
        found = one.tried()[attempt.number]
        ends.append((found.end, found.tasks, found.value))
    assert ends == [
        ("done", 5, 0.5),  # the first always goes on
        ("stopped", 1, None),
        ("done", 5, pytest.approx(0.6)),
        ("stopped", 3, None),
    ]
    assert sealed == [1, 3]
    assert one.spent()[0] == pytest.approx((5 + 1 + 5 + 3) / 5)
    assert one.best().number == 2


def test_what_cannot_be_stored_as_stopped_goes_on(study, monkeypatch):
    monkeypatch.setattr("harness.study.seal", lambda *_: None)
    one = study("scheduler=asha", "trials=2")
    for curve in ([0.5] * 5, [0.4] * 5):
        trained(one, one.begin(), [curve])
    assert [found.end for found in one.tried()] == ["done", "done"]


def test_seeds_count_together_and_a_bad_configuration_ends_with_its_first(study, monkeypatch):
    monkeypatch.setattr("harness.study.seal", lambda trial, *_: trial)
    one = study("scheduler=asha", "trials=2", "seeds=[100, 101]", "grace=5")
    good = one.begin()
    trained(one, good, [[0.5] * 5, [0.7] * 5])
    bad = one.begin()
    trained(one, bad, [[0.4] * 5, [0.4] * 5])
    first, second = one.tried()
    assert (first.value, first.tasks) == (pytest.approx(0.6), 10)
    assert (second.end, second.tasks) == ("stopped", 5)
    assert list(second.trial_ids) == [bad.trials[0].trial_id]


# --- what goes wrong ------------------------------------------------------------------------


def test_diverged_and_failed_configurations_count_and_the_search_goes_on(study, monkeypatch):
    monkeypatch.setattr("harness.study.seal", lambda trial, *_: trial)
    one = study("trials=4")
    for status in ("diverged", "failed"):
        attempt = one.begin()
        told = Progress(attempt.trials[0].trial_id, 5, (0.9,), 1.0)
        assert not one.progressed(attempt.number, told)
        assert one.ended(attempt.number, Outcome(attempt.trials[0].trial_id, status, "why"))
    search(one)
    ends = [(found.end, found.detail) for found in one.tried()]
    assert ends[:2] == [("diverged", "why"), ("failed", "why")]
    assert [end for end, _ in ends[2:]] == ["done", "done"]
    assert one.best().number >= 2
    assert [len(found.trial_ids) for found in one.tried()] == [1, 1, 1, 1]  # of one task, or all


def test_settings_that_do_not_go_together_count_as_failed(study, monkeypatch):
    one = study("trials=3")
    trials, refused = type(one.plan).trials, []

    def some(plan, configuration):
        if not refused:
            refused.append(configuration)
            raise UserError("they do not go together")
        return trials(plan, configuration)

    monkeypatch.setattr(type(one.plan), "trials", some)
    assert search(one)[0] == refused[0]
    assert [found.end for found in one.tried()] == ["failed", "done", "done"]
    assert one.tried()[0].detail == "they do not go together"


def test_a_killed_search_goes_on_with_what_it_had_begun(study):
    first = study()
    attempt = first.begin()
    told = Progress(attempt.trials[0].trial_id, 5, (0.5, 0.5), 2.0)
    first.progressed(attempt.number, told)

    second = study()
    assert [one.end for one in second.tried()] == ["running"]
    again = second.begin()
    assert (again.number, again.configuration) == (attempt.number, attempt.configuration)
    trained(second, again, [[0.5] * 5])
    assert second.tried()[0].end == "done"
    assert second.begin().number == 1


def test_a_search_killed_while_it_stopped_a_trial_does_not_run_it_again(study, monkeypatch):
    first = study("scheduler=asha")
    trained(first, first.begin(), [[0.5] * 5])
    attempt = first.begin()

    def seal(trial, tasks, store):
        stopped = replace(trial, spec=replace(trial.spec, stop_after=tasks))
        if not store.has(stopped.trial_id):
            write(first, stopped, [0.4])
        return stopped

    monkeypatch.setattr("harness.study.seal", seal)
    monkeypatch.setattr(Study, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trained(first, attempt, [[0.4] * 5])
    monkeypatch.undo()
    monkeypatch.setattr("harness.study.seal", seal)

    second = study("scheduler=asha")
    following = second.begin()
    assert following.number == 2
    found = second.tried()[1]
    assert (found.end, found.tasks, found.seconds) == ("stopped", 1, 7.0)
    assert len(found.trial_ids) == 1
    assert second.store.has(found.trial_ids[0])


def test_a_worker_that_begins_again_changes_nothing(study):
    one = study("seeds=[100, 101]")
    attempt = one.begin()
    first, second = attempt.trials
    write(one, first, [0.5] * 5)
    assert not one.ended(attempt.number, Outcome(first.trial_id, "done"))
    one.progressed(attempt.number, Progress(second.trial_id, 5, (0.3,), 1.0))
    assert one.running(attempt.number) == second
    # Its worker is lost; another one begins with the first seed, which is stored.
    assert not one.ended(attempt.number, Outcome(first.trial_id, "done"))
    one.progressed(attempt.number, Progress(second.trial_id, 5, (0.3, 0.3), 2.0))
    write(one, second, [0.3] * 5)
    assert one.ended(attempt.number, Outcome(second.trial_id, "done"))
    assert one.tried()[0].value == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "named"),
    [("search_seed=1", "search_seed"), ("epochs=7", "spec"), ("metric=CA", "metric")],
)
def test_another_search_under_the_same_name_is_refused(study, change, named):
    study()
    with pytest.raises(UserError, match=f"{named} changed since .* er digits/5 .* another --res"):
        study(change)


def test_more_trials_and_another_budget_are_the_same_search(study):
    assert len(search(study("trials=3"))) == 3
    assert len(search(study("trials=5", "budget={hours: 10}"))) == 5


@pytest.mark.parametrize(("budget", "begun"), [("{trainings: 3}", 3), ("{hours: 0.005}", 3)])
def test_a_budget_ends_a_search(study, budget, begun):
    """A training counts 7 seconds here, 0.0019 hours."""
    assert len(search(study(f"budget={budget}"))) == begun


def test_a_space_may_hold_settings_of_the_protocols_parts(plan):
    chosen = plan(
        "method=no_strategy",
        "protocol=online_ssl",
        "space={objective.temperature: {uniform: [0.1, 1]}}",
        "set={backbone: {name: cnn, widths: [4, 8]}}",
    )
    assert chosen.default == {"objective.temperature": 0.5}
    (trial,) = chosen.trials({"objective.temperature": 0.25})
    assert trial.spec.protocol["objective"]["temperature"] == 0.25


def test_every_value_of_a_small_space_is_found_even_those_that_are_no_points(study):
    space = "space={batch_size: {integers: [8, 19], points: 2}}"
    found = search(study("method=finetune", space, "trials=30"))
    assert sorted(one["batch_size"] for one in found) == list(range(8, 20))

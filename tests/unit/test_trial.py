"""One trial from its settings to its stored numbers, whatever happens on the way."""

import math
from dataclasses import dataclass, replace

import pytest
import sklearn.datasets  # noqa: F401 - or the first test would wait for it
import torch

from harness.data.scenarios import Scenario
from harness.errors import UserError
from harness.execute import Setup, classify, execute, seal
from harness.grid import expand
from harness.inline import run_inline
from harness.measure import Checkpoint
from harness.store import Failure, Store
from harness.suite import load_suite
from harness.trial import DIVERGENCE_CHECK, DivergedError, StopTraining, TrialRun
from harness.trial import accuracies as mean_accuracies
from methods.base import Training
from methods.learners import build_optimizer, build_schedule

SUITE = """
protocol: class_incremental
methods: [er]
datasets: [digits]
num_tasks: [5]
seeds: [0]
set:
  epochs: 1
  batch_size: 32
  buffer_size: 40
  backbone.hidden: [16]
resources: {cpu: 1}
"""
REPEATABLE = {"accuracy", "accuracy_task_il", "method_memory_bytes", "parameters"}


@pytest.fixture
def trials(tmp_path):
    def make(*assignments):
        path = tmp_path / "tiny.yaml"
        path.write_text(SUITE)
        return expand(load_suite(path, assignments))[0]

    return make


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path / "results", tmp_path / "data", {"revision": None, "dirty": None})
    Store(made.results).create()
    return made


@pytest.fixture
def store(setup):
    return Store(setup.results)


def numbers(store, trial_id):
    """What a run of the same trial has to store again."""
    keys = (
        "after_task",
        "on_task",
        "evaluator",
        "metric",
        "condition",
        "value",
        "n",
        "samples_seen",
    )
    table, _ = store.read(trial_id)
    rows = table.to_pylist()
    return [tuple(row[key] for key in keys) for row in rows if row["metric"] in REPEATABLE]


def matrix(store, trial_id, metric="accuracy"):
    rows = store.read(trial_id)[0].to_pylist()
    return {(r["after_task"], r["on_task"]): r["value"] for r in rows if r["metric"] == metric}


def ignore(progress):
    """Nobody watches."""


def interrupt_after(tasks):
    def notify(progress):
        if progress.tasks_done == tasks:
            raise KeyboardInterrupt

    return notify


class Watch:
    """Notes what an executor tells."""

    def __init__(self):
        self.begun, self.progress, self.outcomes = [], [], []

    def started(self, trial_id):
        self.begun.append(trial_id)

    def progressed(self, progress):
        self.progress.append(progress)

    def ended(self, outcome):
        self.outcomes.append(outcome)


def test_a_finished_trial_is_stored_and_nothing_else_is_left(trials, setup, store):
    (trial,) = trials()
    assert execute(trial, setup, ignore).status == "done"
    assert store.stored() == {trial.trial_id}
    assert store.failures() == {}
    assert not store.checkpoints(trial.trial_id).folder.exists()
    assert not any((setup.results / "locks").iterdir())


def test_stored_rows_and_manifest_say_which_trial_they_are_of(trials, setup, store):
    (trial,) = trials("seeds=[4]", "methods=[{name: er, label: heavy}]")
    execute(trial, setup, ignore)
    table, manifest = store.read(trial.trial_id)
    rows = table.to_pylist()
    for key, value in {
        "trial_id": trial.trial_id,
        "suite": "tiny",
        "method": "er",
        "label": "heavy",
        "dataset": "digits",
        "distribution": "regular",
        "num_tasks": 5,
        "protocol": "class_incremental",
        "seed": 4,
        "split": "test",
    }.items():
        assert {row[key] for row in rows} == {value}, key
    assert manifest["trial_id"] == trial.trial_id
    assert manifest["group"] == trial.spec.group
    assert manifest["spec"] == trial.spec.to_json()
    assert sorted(manifest["class_order"]) == list(range(10))
    assert manifest["attempts"] == 1
    assert manifest["resources"] == {"cpu": 1, "gpu": 0, "images_gb": None}
    assert manifest["flags"]["threads"] == 1


def test_the_classifier_measures_a_triangle_and_every_task_s_own_classes(trials, setup, store):
    (trial,) = trials()
    execute(trial, setup, ignore)
    triangle = {(after, on) for after in range(5) for on in range(after + 1)}
    assert matrix(store, trial.trial_id).keys() == triangle
    square = {(after, on) for after in range(-1, 5) for on in range(5)}
    task_il = matrix(store, trial.trial_id, "accuracy_task_il")
    assert task_il.keys() == square
    assert all(0 <= value <= 1 for value in task_il.values())


def test_a_trial_that_is_stored_is_not_run_again(trials, setup, store):
    (trial,) = trials()
    execute(trial, setup, ignore)
    before = store.path(trial.trial_id).read_bytes()
    watch = Watch()
    assert execute(trial, setup, watch.progressed).status == "done"
    assert watch.progress == []
    assert store.path(trial.trial_id).read_bytes() == before


def test_a_trial_in_the_hands_of_another_run_is_left_to_it(trials, setup, store):
    (trial,) = trials()
    with store.claim(trial.trial_id):
        assert execute(trial, setup, ignore).status == "busy"
    assert store.stored() == frozenset()


@pytest.mark.parametrize(
    "settings",
    [
        ["methods=er", "passes=2"],
        ["methods=joint", "num_tasks=2"],
        ["methods=finetune", "optimizer=adam", "lr=0.001", "fresh_optimizer=false"],
        ["methods=er", "schedule=cosine", "fresh_optimizer=false", "momentum=0.9"],
        ["methods=er", "schedule=multistep", "milestones=[1]", "epochs=2"],
        ["methods=er", "distribution=irregular", "num_tasks=4"],
    ],
    ids=" ".join,
)
def test_an_interrupted_trial_ends_with_the_numbers_of_an_undisturbed_one(
    trials, setup, store, tmp_path, settings
):
    (trial,) = trials(*settings)
    tasks = trial.spec.num_tasks
    elsewhere = Setup(tmp_path / "undisturbed", setup.data_root, setup.git)
    Store(elsewhere.results).create()
    execute(trial, elsewhere, ignore)
    for done in (1, tasks - 1):
        with pytest.raises(KeyboardInterrupt):
            execute(trial, setup, interrupt_after(done))
        assert not store.has(trial.trial_id)
    watch = Watch()
    assert execute(trial, setup, watch.progressed).status == "done"
    assert [p.tasks_done for p in watch.progress] == [tasks - 1, tasks]
    assert store.read(trial.trial_id)[1]["attempts"] == 3 - (tasks == 2)
    undisturbed = numbers(Store(elsewhere.results), trial.trial_id)
    assert numbers(store, trial.trial_id) == undisturbed


def test_a_damaged_checkpoint_costs_a_task_and_no_number(trials, setup, store):
    (trial,) = trials()
    with pytest.raises(KeyboardInterrupt):
        execute(trial, setup, interrupt_after(3))
    newest = max(store.checkpoints(trial.trial_id).folder.glob("task_*"))
    newest.write_bytes(newest.read_bytes()[:-10])
    watch = Watch()
    execute(trial, setup, watch.progressed)
    assert [p.tasks_done for p in watch.progress] == [2, 3, 4, 5]
    resumed = numbers(store, trial.trial_id)
    store.path(trial.trial_id).unlink()
    execute(trial, setup, ignore)
    assert numbers(store, trial.trial_id) == resumed


def test_the_checkpoint_of_another_trial_is_not_resumed_from(trials, setup, store):
    first, second = trials("seeds=[0, 1]")
    with pytest.raises(KeyboardInterrupt):
        execute(first, setup, interrupt_after(2))
    folders = [store.checkpoints(t.trial_id).folder for t in (first, second)]
    folders[0].rename(folders[1])
    watch = Watch()
    execute(second, setup, watch.progressed)
    assert watch.progress[0].tasks_done == 0
    assert store.read(second.trial_id)[1]["attempts"] == 1


def test_a_loss_that_is_not_finite_ends_a_trial_as_diverged(trials, setup, store):
    (trial,) = trials("lr=1e30")
    outcome = execute(trial, setup, ignore)
    assert outcome.status == "diverged"
    assert store.failures()[trial.trial_id].kind == "diverged"
    assert not store.has(trial.trial_id)
    assert not store.checkpoints(trial.trial_id).folder.exists()


def test_a_trial_that_diverges_stops_long_before_its_task_ends(trials, setup, tmp_path):
    (trial,) = trials("lr=1e30", "epochs=1000")
    run = TrialRun(trial, setup.data_root, torch.device("cpu"))
    with pytest.raises(DivergedError):
        run.run(Store(tmp_path / "results").checkpoints("x"), ignore, started="now")
    assert run.position.tally.samples <= 32 * DIVERGENCE_CHECK


def test_a_trial_that_diverges_after_some_tasks_leaves_no_result_and_no_checkpoint(
    trials, setup, store
):
    """One step a task: the loss of the first is finite, and that of the second is not."""
    (trial,) = trials("lr=1e30", "batch_size=1000", "methods=finetune")
    watch = Watch()
    assert execute(trial, setup, watch.progressed).status == "diverged"
    assert [p.tasks_done for p in watch.progress] == [0, 1]
    assert store.stored() == frozenset()
    assert not store.checkpoints(trial.trial_id).folder.exists()


def unfit(trial):
    """A trial whose backbone does not suit the images, which planning would have refused."""
    backbone = {"name": "cnn", "widths": [2, 2, 2, 2, 2]}
    spec = replace(trial.spec, protocol={**trial.spec.protocol, "backbone": backbone})
    return replace(trial, spec=spec)


def test_what_a_method_refuses_is_noted_and_the_other_trials_go_on(trials, setup, store):
    good = trials("methods=[er]", "seeds=[0]")
    bad = [unfit(good[0])]
    watch = Watch()
    outcomes = run_inline([*bad, *good], setup, watch)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    note = store.failures()[bad[0].trial_id]
    assert note.kind == "user"
    assert "5 widths do not suit 8x8 images" in note.message
    assert "Traceback (most recent call last)" in note.traceback
    assert note.title == "er digits/5 seed 0"
    assert store.stored() == {good[0].trial_id}
    assert watch.outcomes == outcomes


def test_attempts_at_a_failing_trial_are_counted(trials, setup, store):
    bad = unfit(trials()[0])
    for attempt in (1, 2, 3):
        execute(bad, setup, ignore)
        assert store.failures()[bad.trial_id].attempt == attempt


def test_a_success_removes_an_earlier_failure(trials, setup, store):
    (trial,) = trials()
    store.fail(Failure(trial.trial_id, "lost", "", "", 1, "", ""))
    execute(trial, setup, ignore)
    assert store.failures() == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DivergedError("x"), "diverged"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("x"), "out of memory"),
        (ValueError("x"), "user"),
        (RuntimeError("x"), "user"),
    ],
)
def test_failures_have_the_classes_of_the_contract(error, kind):
    assert classify(error)[0] == kind
    assert classify(error)[1]


def test_joint_at_the_last_stage_alone_stores_the_last_row_alone(trials, setup, store):
    (trial,) = trials("methods=[joint]", "stages=last")
    watch = Watch()
    execute(trial, setup, watch.progressed)
    assert {row["after_task"] for row in store.read(trial.trial_id)[0].to_pylist()} == {4}
    assert [p.accuracy for p in watch.progress[:-1]] == [None] * 5
    assert watch.progress[-1].accuracy > 0


def test_the_last_stage_of_joint_is_the_same_with_or_without_the_others(trials, setup, store):
    every, last = trials("methods=[joint, {name: joint, label: last, set: {stages: last}}]")
    for trial in (every, last):
        execute(trial, setup, ignore)
    first, second = (matrix(store, t.trial_id) for t in (every, last))
    assert {key: value for key, value in first.items() if key[0] == 4} == second


def test_joint_sees_all_images_so_far_at_every_stage(trials, setup, store):
    (trial,) = trials("methods=[joint]", "epochs=2")
    execute(trial, setup, ignore)
    rows = store.read(trial.trial_id)[0].to_pylist()
    seen = [min(r["samples_seen"] for r in rows if r["after_task"] == t) for t in range(5)]
    sizes = task_sizes(trial, setup)
    stages = [2 * sum(sizes[: t + 1]) for t in range(5)]
    assert seen == [sum(stages[: t + 1]) for t in range(5)]


def task_sizes(trial, setup):
    scenario: Scenario = TrialRun(trial, setup.data_root, torch.device("cpu")).scenario
    return [len(task.train) for task in scenario.tasks]


@pytest.mark.parametrize(("passes", "epochs"), [(1, 1), (3, 1), (1, 2)])
def test_samples_seen_count_images_drawn_and_not_steps(trials, setup, store, passes, epochs):
    (trial,) = trials(f"passes={passes}", f"epochs={epochs}")
    execute(trial, setup, ignore)
    rows = store.read(trial.trial_id)[0].to_pylist()
    last = {r["samples_seen"] for r in rows if r["after_task"] == 4}
    assert last == {epochs * sum(task_sizes(trial, setup))}


def test_progress_tells_the_mean_primary_accuracy_over_the_tasks_seen(trials, setup, store):
    (trial,) = trials("evaluators=[probe_ridge, classifier]")
    watch = Watch()
    execute(trial, setup, watch.progressed)
    assert [p.tasks_done for p in watch.progress] == [0, 1, 2, 3, 4, 5]
    assert {(p.trial_id, p.num_tasks) for p in watch.progress} == {(trial.trial_id, 5)}
    rows = store.read(trial.trial_id)[0].to_pylist()
    for done, progress in enumerate(watch.progress[1:], start=1):
        seen = [
            r["value"]
            for r in rows
            if (r["evaluator"], r["metric"], r["after_task"])
            == ("classifier", "accuracy", done - 1)
        ]
        assert len(seen) == done
        assert progress.accuracy == pytest.approx(math.fsum(seen) / done)
    assert watch.progress[0].accuracy is None


def test_an_evaluator_may_measure_the_last_task_alone(trials, setup, store):
    (trial,) = trials("evaluators=[classifier, {name: probe_ridge, when: last}]")
    execute(trial, setup, ignore)
    rows = store.read(trial.trial_id)[0].to_pylist()
    found = {(r["after_task"], r["on_task"]) for r in rows if r["evaluator"] == "probe_ridge"}
    assert found == {(4, task) for task in range(5)}


def test_the_validation_split_is_measured_on_images_that_were_not_trained_on(trials, setup, store):
    test, validation = trials("validation=0.2")[0], trials("validation=0.2", "split=validation")[0]
    for trial in (test, validation):
        execute(trial, setup, ignore)
    table = store.read(validation.trial_id)[0].to_pylist()
    assert {row["split"] for row in table} == {"validation"}
    run = TrialRun(validation, setup.data_root, torch.device("cpu"))
    counts = {(r["on_task"], r["n"]) for r in table if r["metric"] == "accuracy"}
    assert counts == {(t.position, len(t.validation)) for t in run.scenario.tasks}
    held = torch.cat([task.validation for task in run.scenario.tasks])
    trained = torch.cat([task.train for task in run.scenario.tasks])
    assert not set(held.tolist()) & set(trained.tolist())
    assert matrix(store, test.trial_id) != matrix(store, validation.trial_id)


def test_cost_rows_tell_memory_by_kind_and_parameters(trials, setup, store):
    (trial,) = trials()
    execute(trial, setup, ignore)
    rows = [r for r in store.read(trial.trial_id)[0].to_pylist() if r["evaluator"] == "cost"]
    assert {r["on_task"] for r in rows} == {-1}
    last = {(r["metric"], r["condition"]): r["value"] for r in rows if r["after_task"] == 4}
    images = 40 * (64 + 8)  # pixels and a label each
    assert last["method_memory_bytes", None] == images
    assert last["method_memory_bytes", "exemplars"] == images
    assert last["parameters", None] == 64 * 16 + 16 + 16 * 10 + 10
    for metric in ("train_seconds", "eval_seconds", "epoch_seconds", "peak_memory_bytes"):
        assert last[metric, None] > 0


def test_a_trial_whose_weights_are_no_numbers_at_the_end_of_a_task_has_diverged(trials, setup):
    (trial,) = trials()
    run = TrialRun(trial, setup.data_root, torch.device("cpu"))
    run.method.remember = lambda _: next(run.method.net.parameters()).data.fill_(math.nan)
    last = replace(run.scenario.tasks[0], train=run.scenario.tasks[0].train[:8])  # a single step
    with pytest.raises(DivergedError, match="a weight became infinite or not a number"):
        run._learn(last)


def test_the_seconds_of_an_epoch_leave_out_the_first_and_what_comes_after_the_last(trials, setup):
    (trial,) = trials("epochs=4")
    run = TrialRun(trial, setup.data_root, torch.device("cpu"))
    assert run._epoch_seconds() is None
    batches = iter(run._batches(run.scenario.tasks[0]))
    for batch in batches:
        run.method.observe(batch)
    starts = run._epochs
    assert len(starts) == 5  # and the end of the last
    assert starts == sorted(starts)
    assert run._epoch_seconds() == pytest.approx((starts[4] - starts[1]) / 3)


def test_an_upper_reference_on_a_shuffle_of_all_tasks_has_no_epochs_to_time(trials, setup):
    changes = ("methods=[iid]", "protocol=online_ssl", "evaluators=[cost]", "primary=cost")
    (trial,) = trials(*changes, "backbone=mlp")
    run = TrialRun(trial, setup.data_root, torch.device("cpu"))
    run._learn(run.scenario.tasks[0])
    assert run._epoch_seconds() is None


@dataclass
class Stream:
    """As much of a stream as a schedule asks for."""

    batches: int
    epochs: int
    milestones: tuple[int, ...]

    def __len__(self):
        return self.batches


def rates(training, tasks=2, batches=4):
    """The learning rate of every step of some tasks, each under a schedule of its own."""
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], training)
    found = []
    for _ in range(tasks):
        stream = Stream(batches, training.epochs, training.milestones)
        schedule = build_schedule(optimizer, training, stream)
        for _ in range(batches):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule is not None:
                schedule.step()
    return found


def test_a_schedule_restarts_with_every_task():
    cosine = [0.2 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates(Training(lr=0.2, schedule="cosine")) == pytest.approx(cosine * 2)
    steps = Training(lr=0.2, schedule="multistep", milestones=(1,), epochs=2)
    assert rates(steps) == pytest.approx([0.2, 0.2, 0.02, 0.02] * 2)
    assert rates(Training(lr=0.2)) == [0.2] * 8


def accuracies(store, trial_id):
    rows = store.read(trial_id)[0].to_pylist()
    wanted = [r for r in rows if r["metric"] == "accuracy"]
    return {(r["after_task"], r["on_task"]): (r["num_tasks"], r["value"]) for r in wanted}


def test_the_first_tasks_alone_are_learned_as_in_the_whole_sequence(trials, setup, store):
    (whole,), (first,) = trials(), trials("first_tasks=2")
    for trial in (whole, first):
        assert execute(trial, setup, lambda _: None).status == "done"
    all_of_them = accuracies(store, whole.trial_id)
    assert accuracies(store, first.trial_id) == {
        place: (2, value) for place, (_, value) in all_of_them.items() if max(place) < 2
    }


def test_a_probe_sees_nothing_of_tasks_after_the_first(trials, tmp_path):
    (trial,) = trials("first_tasks=2")
    run = TrialRun(trial, tmp_path / "data", torch.device("cpu"))
    seen = Checkpoint(run.method, run.scenario, 1, split="test", seed=0, cost=lambda: None)
    for part in ("train", "test"):
        assert set(seen.labels(part).tolist()) == {0, 1, 2, 3}


def test_as_many_first_tasks_as_there_are_is_the_trial_itself(trials):
    (whole,), (first,) = trials(), trials("first_tasks=5")
    assert first.trial_id == whole.trial_id


@pytest.mark.parametrize("count", [0, 6])
def test_first_tasks_are_some_of_them(trials, count):
    with pytest.raises(UserError, match=r"first_tasks: must be from 1 to num_tasks \(5\)"):
        trials(f"first_tasks={count}")


def stopped_after(tasks, trial, setup):
    """Run a trial until so many tasks are learned."""

    def notify(progress):
        if progress.tasks_done == tasks:
            raise StopTraining

    return execute(trial, setup, notify)


def test_a_trial_that_is_stopped_is_stored_as_the_whole_one_was_until_then(trials, setup, store):
    (whole,) = trials()
    outcome = stopped_after(2, whole, setup)
    assert (outcome.status, store.has(whole.trial_id)) == ("stopped", False)
    assert not store.failures()

    stopped = seal(whole, 2, store)
    assert stopped.spec.stop_after == 2
    assert store.checkpoints(whole.trial_id).newest() is None
    execute(whole, setup, lambda _: None)
    all_of_them = accuracies(store, whole.trial_id)
    assert accuracies(store, stopped.trial_id) == {
        place: value for place, value in all_of_them.items() if place[0] < 2
    }
    document = store.read(stopped.trial_id)[1]
    assert document["trial_id"] == stopped.trial_id
    assert document["spec"]["stop_after"] == 2
    assert document["seconds"] > 0
    assert document["versions"] == store.read(whole.trial_id)[1]["versions"]


def test_what_is_sealed_is_what_the_stopped_trial_gives_from_its_start(trials, setup, store):
    (whole,) = trials()
    stopped_after(3, whole, setup)
    stopped = seal(whole, 3, store)
    sealed = numbers(store, stopped.trial_id)
    store.path(stopped.trial_id).unlink()
    assert execute(stopped, setup, lambda _: None).status == "done"
    assert numbers(store, stopped.trial_id) == sealed


def test_a_trial_is_not_sealed_without_the_checkpoint_of_that_task(trials, setup, store):
    (whole,) = trials()
    stopped_after(2, whole, setup)
    assert seal(whole, 3, store) is None
    assert store.checkpoints(whole.trial_id).newest() is not None
    assert seal(whole, 2, store) is not None
    assert seal(whole, 2, store) is not None  # once more, after a crash between it and its note


def test_progress_tells_the_accuracies_that_the_rows_have(trials, setup, store):
    (trial,) = trials()
    told = []
    execute(trial, setup, told.append)
    rows = store.read(trial.trial_id)[0].to_pylist()
    assert told[-1].accuracies == mean_accuracies(rows, "classifier", 5)
    matrix = accuracies(store, trial.trial_id)
    for done in range(1, 6):
        row = [matrix[done - 1, on][1] for on in range(done)]
        assert told[-1].accuracies[done - 1] == pytest.approx(sum(row) / done)
    assert [p.tasks_done for p in told] == [0, 1, 2, 3, 4, 5]


def test_what_diverged_can_be_kept_until_the_task_before(trials, setup, store, monkeypatch):
    (trial,) = trials()
    learn = TrialRun._learn

    def diverge(run, task):
        if task.position == 2:
            raise DivergedError("a loss became infinite or not a number")
        learn(run, task)

    monkeypatch.setattr(TrialRun, "_learn", diverge)
    assert execute(trial, setup, lambda _: None).status == "diverged"
    assert store.checkpoints(trial.trial_id).newest() is None

    kept = replace(setup, keep_diverged=True)
    assert execute(trial, kept, lambda _: None).status == "diverged"
    until = seal(trial, 2, store)
    assert {after for after, _ in accuracies(store, until.trial_id)} == {0, 1}
    assert store.failures()[trial.trial_id].kind == "diverged"

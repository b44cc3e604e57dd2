"""What a trial stores of every image, and how an analysis reads it again."""

import numpy as np
import pytest
import torch
from tiny import tiny_run, tiny_trial

from analysis.records import FEATURES, PREDICTIONS, features, records
from analysis.trial_files import StoreError
from harness import protocol
from harness.execute import Setup, execute
from harness.measure import Checkpoint, Cost
from harness.records import predictions
from harness.store import Store
from harness.trial import TrialRun

CPU = torch.device("cpu")


@pytest.fixture
def setup(tmp_path):
    made = Setup(tmp_path / "results", tmp_path / "data", {"revision": None, "dirty": None})
    Store(made.results).create()
    return made


def run_to_the_end(setup, **changes):
    trial = tiny_trial("er", records=["features", "predictions"], **changes)
    outcome = execute(trial, setup, lambda _: None)
    assert outcome.status == "done", outcome
    return trial


def test_predictions_of_every_task_give_the_stored_accuracies(setup):
    trial = run_to_the_end(setup)
    found = records(setup.results, trial.trial_id, PREDICTIONS)
    rows = Store(setup.results).read(trial.trial_id)[0].to_pandas()
    rows = rows[(rows["evaluator"] == "classifier") & (rows["after_task"] >= 0)]
    columns = {"accuracy": "predicted", "accuracy_task_il": "predicted_task_il"}
    for row in rows.itertuples():
        on = found[(found["after_task"] == row.after_task) & (found["task"] == row.on_task)]
        assert (on[columns[row.metric]] == on["label"]).mean() == pytest.approx(row.value)
        assert len(on) == row.n
    assert found["confidence"].between(1 / 10, 1).all()


def test_features_are_those_of_the_method_image_by_image(setup):
    trial = run_to_the_end(setup)
    frame, vectors = features(setup.results, trial.trial_id)
    run = TrialRun(trial, setup.data_root, CPU)
    for task in run.scenario.tasks:
        run._learn(task)
    last = frame["after_task"] == 4
    images = run.scenario.dataset.test.x[frame["image"][last].tolist()]
    np.testing.assert_allclose(vectors[last], run.method.embed(images), rtol=1e-4, atol=1e-5)
    labels = run.scenario.dataset.test.y[frame["image"][last].tolist()]
    assert (labels.numpy() == frame["label"][last]).all()
    assert frame["after_task"].nunique() == 5


def test_records_of_features_show_no_vectors_in_the_frame_of_records(setup):
    trial = run_to_the_end(setup)
    assert set(records(setup.results, trial.trial_id, FEATURES)) == {
        *("after_task", "image", "label", "task")
    }


def test_a_trial_that_keeps_no_records_says_so_when_they_are_asked_for(setup):
    trial = tiny_trial("er")
    execute(trial, setup, lambda _: None)
    with pytest.raises(StoreError, match="no records of features; a suite asks for them"):
        features(setup.results, trial.trial_id)


def test_a_half_written_record_is_not_read(setup):
    trial = run_to_the_end(setup)
    folder = Store(setup.results).records(trial.trial_id) / "predictions"
    before = records(setup.results, trial.trial_id, PREDICTIONS)
    (folder / ".half.tmp").write_bytes(b"PAR1")
    assert records(setup.results, trial.trial_id, PREDICTIONS).equals(before)
    assert len(list(folder.glob("*.parquet"))) == 5


def test_a_method_without_a_classifier_is_left_out_where_predictions_are_recorded():
    spec = tiny_trial("replay", records=["features"]).spec
    assert protocol.unsuitable(spec) is None
    with pytest.raises(AssertionError):
        tiny_trial("replay", records=["predictions"])


def test_confidence_is_that_of_the_softmax_where_the_classifier_is_another_rule():
    run = tiny_run("icarl")
    for task in run.scenario.tasks[:2]:
        run._learn(task)
    cost = Cost(0.0, 0.0, None, 0)
    at = Checkpoint(run.method, run.scenario, 1, split="test", seed=0, cost=lambda: cost)
    x = run.scenario.dataset.test.x[at.rows("test")]
    seen = run.method.class_logits(x)[:, :4].softmax(1)
    found = predictions(at)
    np.testing.assert_allclose(found["confidence"], seen.amax(1), rtol=1e-5)
    assert found["predicted"].to_pylist() == run.method.predict(x)[:, :4].argmax(1).tolist()


@pytest.mark.parametrize(("name", "passes"), [("finetune", 1), ("icarl", 2)])
def test_logits_and_scores_are_one_pass_where_they_are_the_same(name, passes, monkeypatch):
    run = tiny_run(name)
    cost = Cost(0.0, 0.0, None, 0)
    at = Checkpoint(run.method, run.scenario, -1, split="test", seed=0, cost=lambda: cost)
    shown = []
    for asked in ("predict", "class_logits"):
        plain = getattr(run.method, asked)
        monkeypatch.setattr(
            run.method, asked, lambda x, plain=plain: (shown.append(len(x)), plain(x))[1]
        )
    assert at.logits.shape == at.class_logits.shape
    assert sum(shown) == passes * len(run.scenario.dataset.test)

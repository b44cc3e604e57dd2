"""Recall: errors and bits of a method that recalls images in a known way."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_run

from harness.evaluators import recall
from harness.measure import Checkpoint, Cost, Details
from methods.base import Recalled

BITS = 100.0


class Darker:
    """Recalls every image of the tasks seen a shade darker than it was; always guesses class 0."""

    predicts = True

    def __init__(self, run, shades):
        self.run = run
        self.shades = shades

    def recalled(self, per_task):
        found = []
        for task, shade in enumerate(self.shades):
            rows = self.run.scenario.tasks[task].train[:per_task]
            x = self.run.scenario.dataset.train.x[rows] - shade
            found.append(Recalled(task, rows, x, torch.full((len(rows),), BITS)))
        return found

    def predict(self, x):
        scores = torch.zeros(len(x), 10)
        scores[:, 9] = 2.0  # of a class not seen
        scores[:, 0] = 1.0
        return scores


def measured(method, run, **settings):
    cost = Cost(0.0, 0.0, None, 0)
    at = Checkpoint(method, run.scenario, 1, split="test", seed=0, cost=lambda: cost)
    return list(recall.build(recall.Config(**settings)).evaluate(at))


@pytest.fixture
def run():
    run = tiny_run("finetune")
    dataset = run.scenario.dataset
    bright = replace(dataset.train, x=dataset.train.x.clamp(min=20))  # room to be darker
    run.scenario = replace(run.scenario, dataset=replace(dataset, train=bright))
    return run


def test_errors_and_bits_of_each_task(run):
    found = measured(Darker(run, (0, 10)), run)
    numbers = {(m.on_task, m.metric): m.value for m in found if not isinstance(m, Details)}
    assert numbers[0, "bits_per_pixel"] == BITS / 64
    assert numbers[0, "recall_error"] == 0
    assert (0, "recall_psnr") not in numbers  # infinite
    assert numbers[1, "recall_error"] == pytest.approx((10 / 255) ** 2)
    assert numbers[1, "recall_psnr"] == pytest.approx(28.1308, abs=1e-4)
    labels = run.scenario.dataset.train.y[run.scenario.tasks[0].train[:100]]
    assert numbers[0, "recall_accuracy"] == pytest.approx((labels == 0).double().mean().item())
    assert numbers[1, "recall_accuracy"] == 0


def test_images_are_shown_beside_their_originals(run):
    found = measured(Darker(run, (0, 10)), run, per_task=5, shown=3)
    assert {m.n for m in found if not isinstance(m, Details)} == {5}
    (details,) = [m for m in found if isinstance(m, Details)]
    columns = details.columns
    assert columns["task"].tolist() == [0, 0, 0, 1, 1, 1]
    shades = columns["original"].astype(int) - columns["recalled"].astype(int)
    assert (shades[:3] == 0).all()
    assert (shades[3:] == 10).all()
    rows = torch.from_numpy(columns["image"])
    train = run.scenario.dataset.train
    assert (train.x[rows].flatten(1).numpy() == columns["original"]).all()
    assert (train.y[rows].numpy() == columns["label"]).all()
    assert (columns["channels"][0], columns["height"][0], columns["width"][0]) == (1, 8, 8)


def test_nothing_shown_is_no_details(run):
    assert not [m for m in measured(Darker(run, (1,)), run, shown=0) if isinstance(m, Details)]


def test_a_method_that_recalls_nothing_gives_nothing(run):
    assert measured(run.method, run) == []


@pytest.mark.parametrize("settings", [{"per_task": 0}, {"shown": -1}])
def test_counts_are_checked(settings):
    with pytest.raises(ValueError, match="per_task must be at least 1 and shown at least 0"):
        recall.Config(**settings)

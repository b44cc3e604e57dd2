"""Accuracies of classes, counted by hand, and how they spread."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lookup import Lookup, checkpoint, found, scenario, scores_of, values

from harness.evaluators import fairness
from harness.measure import Details
from harness.records import write_details

EVALUATOR = fairness.build(fairness.Config())
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 2, 3]
GUESSES = [0, 0, 0, 2, 1, 0, 3, 3, 2, 3]
ACCURACIES = [3 / 4, 1 / 2, 1 / 3, 1.0]


def naive_gini(values):
    differences = sum(abs(one - other) for one in values for other in values)
    return differences / (2 * len(values) * sum(values))


def test_the_spread_of_accuracies_counted_by_hand():
    method = Lookup(scores=scores_of(GUESSES, 4))
    numbers, details = found(EVALUATOR, method, scenario(LABELS, tasks=2))
    columns = details["class_accuracy"]
    assert columns["label"].tolist() == [0, 1, 2, 3]
    assert columns["name"].tolist() == ["a", "b", "c", "d"]
    assert columns["task"].tolist() == [0, 0, 1, 1]
    assert columns["accuracy"].tolist() == pytest.approx(ACCURACIES)
    assert columns["n"].tolist() == [4, 2, 3, 1]
    mean = sum(ACCURACIES) / 4
    expected = {
        "class_std": (sum((a - mean) ** 2 for a in ACCURACIES) / 4) ** 0.5,
        "class_min": 1 / 3,
        "class_range": 2 / 3,
        "worst_tenth": 1 / 3,
        "gini": naive_gini(ACCURACIES),
    }
    for metric, value in expected.items():
        assert values(numbers, metric) == pytest.approx({-1: value}), metric
        assert numbers[metric, -1, None].n == 10
    assert values(numbers, "task_range") == pytest.approx({0: 1 / 4, 1: 2 / 3})
    assert values(numbers, "task_std") == pytest.approx({0: 1 / 8, 1: 1 / 3})
    assert numbers["task_range", 1, None].n == 4


def test_after_the_first_task_its_classes_alone_are_measured_and_compete():
    loud = scores_of(GUESSES, 4)
    loud[:, 2:] += 5
    numbers, details = found(
        EVALUATOR, Lookup(scores=loud), scenario(LABELS, tasks=2), after_task=0
    )
    # The image guessed as 2 is a tie of 0 and 1 without it: the first one counts.
    assert details["class_accuracy"]["accuracy"].tolist() == [1.0, 0.5]
    assert values(numbers, "task_range") == {0: 0.5}
    assert numbers["class_std", -1, None].n == 6


def test_the_worst_tenth_of_twenty_classes_are_two_of_nineteen_one():
    ascending = np.linspace(0.1, 0.9, 20)
    shuffled = np.random.default_rng(0).permutation(ascending)
    assert dict(fairness.summary(shuffled))["worst_tenth"] == pytest.approx(ascending[:2].mean())
    assert dict(fairness.summary(shuffled[shuffled > 0.1]))["worst_tenth"] == ascending[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_gini_coefficient_is_that_of_all_pairs(seed):
    accuracies = np.random.default_rng(seed).integers(0, 6, 11 + seed) / 5  # with ties and zeros
    assert fairness.gini(accuracies) == pytest.approx(naive_gini(accuracies.tolist()))


def test_the_gini_coefficient_of_one_who_has_all_and_of_equals():
    assert fairness.gini(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(3 / 4)
    assert fairness.gini(np.full(7, 0.3)) == pytest.approx(0)
    assert fairness.gini(np.zeros(4)) == 0


def test_a_domain_has_a_row_for_each_class():
    labels = [0, 0, 0, 0, 1, 1]  # in turn in the domains 0 and 1
    method = Lookup(scores=scores_of([0, 1, 0, 1, 1, 0], 2))
    numbers, details = found(EVALUATOR, method, scenario(labels, tasks=2, domains=True))
    columns = details["class_accuracy"]
    rows = list(zip(*(columns[name].tolist() for name in ("task", "label")), strict=True))
    assert rows == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert columns["accuracy"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert columns["n"].tolist() == [2, 1, 2, 1]
    assert values(numbers, "class_range") == {-1: 0.0}  # each class is right half of the time
    assert values(numbers, "class_min") == {-1: 0.5}


def test_domains_not_yet_seen_do_not_count():
    labels = [0, 0, 0, 0, 1, 1]
    method = Lookup(scores=scores_of([0, 1, 1, 1, 1, 0], 2))
    tasks = scenario(labels, tasks=2, domains=True)
    numbers, details = found(EVALUATOR, method, tasks, after_task=0)
    assert details["class_accuracy"]["task"].tolist() == [0, 0]
    assert details["class_accuracy"]["accuracy"].tolist() == [0.5, 1.0]
    assert values(numbers, "task_range") == {0: 0.5}
    assert numbers["class_min", -1, None].n == 3


def test_classes_and_tasks_without_measured_images_are_left_out():
    # A tenth of the training images is held out: one of class 0, which has ten, and none of others.
    train = [0] * 10 + [1, 2, 3]
    tasks = scenario([0, 1, 2, 3], train=train, tasks=2, validation=0.1)
    method = Lookup(scores=scores_of([0] * 17, 4))
    numbers, details = found(EVALUATOR, method, tasks, split="validation")
    assert details["class_accuracy"]["label"].tolist() == [0]
    assert values(numbers, "class_min") == {-1: 1.0}
    assert values(numbers, "task_range") == {0: 0.0}
    nothing = scenario([0, 1, 2, 3], tasks=2, validation=0.1)
    assert found(EVALUATOR, method, nothing, split="validation") == ({}, {})


def test_names_of_classes_are_stored(tmp_path):
    tasks = scenario([0, 1], tasks=1)
    named = replace(tasks, dataset=replace(tasks.dataset, class_names=("é", "grüne Äpfel")))
    here = checkpoint(Lookup(scores=torch.eye(2)), named)
    (details,) = [one for one in EVALUATOR.evaluate(here) if isinstance(one, Details)]
    write_details(details, 0, tmp_path)
    frame = pd.read_parquet(tmp_path / "class_accuracy" / "after_task_000.parquet")
    assert frame["name"].tolist() == ["é", "grüne Äpfel"]
    assert frame["n"].tolist() == [1, 1]

"""The confusion matrix of guesses written by hand."""

import numpy as np
import pytest
import torch
from lookup import Lookup, found, scenario, scores_of, values

from harness.evaluators import confusion

EVALUATOR = confusion.build(confusion.Config())
LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]
GUESSES = [0, 2, 3, 1, 0, 2, 3, 0, 2, 3]


def test_every_pair_of_classes_is_counted():
    method = Lookup(scores=scores_of(GUESSES, 4))
    numbers, details = found(EVALUATOR, method, scenario(LABELS, tasks=2))
    columns = details["confusion"]
    matrix = np.zeros((4, 4), int)
    for label, guess in zip(LABELS, GUESSES, strict=True):
        matrix[label, guess] += 1
    assert columns["label"].tolist() == [row for row in range(4) for _ in range(4)]
    assert columns["predicted"].tolist() == list(range(4)) * 4
    assert columns["count"].reshape(4, 4).tolist() == matrix.tolist()
    # Two of the five images of the classes 0 and 1 are taken for 2 or 3.
    bias = numbers["bias_to_last", -1, None]
    assert (bias.value, bias.n) == (pytest.approx(2 / 5), 5)
    assert values(numbers, "predicted_share") == pytest.approx({0: 4 / 10, 1: 6 / 10})
    assert numbers["predicted_share", 0, None].n == 10


def test_classes_not_yet_seen_neither_compete_nor_count():
    loud = scores_of(GUESSES, 4)
    loud[:, 2:] += 5
    loud[0, 1] = 0.5  # the best of the first task is 0
    loud[1, 1] = 0.25  # and here 1, once 2 may not be guessed
    numbers, details = found(
        EVALUATOR, Lookup(scores=loud), scenario(LABELS, tasks=2), after_task=0
    )
    assert details["confusion"]["count"].tolist() == [2, 1, 1, 1]
    assert ("bias_to_last", -1, None) not in numbers
    assert values(numbers, "predicted_share") == {0: 1.0}


def test_only_the_last_of_three_tasks_is_the_last():
    method = Lookup(scores=scores_of([1, 2, 1, 2, 2, 1], 3))
    tasks = scenario([0, 0, 1, 1, 2, 2], tasks=3)
    numbers, _ = found(EVALUATOR, method, tasks)
    assert values(numbers, "bias_to_last") == {-1: 2 / 4}
    assert values(numbers, "predicted_share") == pytest.approx({0: 0, 1: 3 / 6, 2: 3 / 6})


def test_a_class_that_is_never_guessed_or_has_no_image_has_its_row_and_column():
    method = Lookup(scores=scores_of([0, 0, 3], 4))
    _, details = found(EVALUATOR, method, scenario([0, 2, 3], tasks=2))
    expected = [[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert details["confusion"]["count"].reshape(4, 4).tolist() == expected


def test_domains_share_their_classes_so_that_none_is_earlier():
    labels = [0, 0, 1, 1]  # an image of each in each of the two domains
    method = Lookup(scores=scores_of([0, 1, 1, 1], 2))
    tasks = scenario(labels, tasks=2, domains=True)
    numbers, details = found(EVALUATOR, method, tasks, after_task=0)
    assert details["confusion"]["count"].tolist() == [1, 0, 0, 1]
    numbers, details = found(EVALUATOR, method, tasks)
    assert details["confusion"]["count"].tolist() == [1, 1, 0, 2]
    assert set(numbers) == {("predicted_share", 0, None), ("predicted_share", 1, None)}


def test_without_measured_images_there_is_nothing():
    method = Lookup(scores=torch.zeros(20, 4))
    tasks = scenario([0, 1, 2, 3], tasks=2, validation=0.1)
    assert found(EVALUATOR, method, tasks, split="validation") == ({}, {})

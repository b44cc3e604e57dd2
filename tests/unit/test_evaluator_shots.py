"""Groups of classes by their training images, counted by hand."""

import pytest
from lookup import Lookup, found, scenario, scores_of, values

from harness.config import settings
from harness.errors import UserError
from harness.evaluators import shots

TRAIN = [0] * 5 + [1] * 4 + [2] * 2 + [3] * 1  # images of each class
LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]
GUESSES = [0, 0, 2, 1, 2, 3, 2, 2, 2, 0]


def measured(config, **keywords):
    tasks = scenario(LABELS, train=TRAIN, tasks=2)
    numbers, details = found(
        shots.build(config), Lookup(scores=scores_of(GUESSES, 4)), tasks, **keywords
    )
    assert not details
    return {condition: (m.value, m.n) for (_, _, condition), m in numbers.items()}


def test_both_thresholds_belong_to_the_outer_groups():
    assert measured(shots.Config(many=4, few=1)) == {
        "many": (pytest.approx(3 / 5), 5),  # classes 0 and 1
        "medium": (pytest.approx(3 / 4), 4),  # class 2
        "few": (0.0, 1),  # class 3
        "overall": (pytest.approx(6 / 10), 10),
    }
    assert measured(shots.Config(many=5, few=2)) == {
        "many": (pytest.approx(2 / 3), 3),
        "medium": (pytest.approx(1 / 2), 2),
        "few": (pytest.approx(3 / 5), 5),
        "overall": (pytest.approx(6 / 10), 10),
    }


def test_a_group_without_classes_is_left_out():
    assert measured(shots.Config()).keys() == {"few", "overall"}
    assert measured(shots.Config(many=2, few=0)).keys() == {"many", "medium", "overall"}
    assert measured(shots.Config(many=2, few=1)).keys() == {"many", "few", "overall"}


def test_only_the_classes_seen_count():
    assert measured(shots.Config(many=4, few=1), after_task=0) == {
        "many": (pytest.approx(4 / 5), 5),  # 2 may not be guessed: once it is 0, once wrongly 0
        "overall": (pytest.approx(4 / 5), 5),
    }


def test_domains_not_yet_seen_do_not_count():
    train = [0] * 5 + [1] * 2
    tasks = scenario([0, 0, 0, 0, 1, 1], train=train, tasks=2, domains=True)
    method = Lookup(scores=scores_of([0, 1, 1, 1, 1, 0], 2))
    evaluator = shots.build(shots.Config(many=5, few=2))
    numbers, _ = found(evaluator, method, tasks, after_task=0)
    assert {condition: (m.value, m.n) for (_, _, condition), m in numbers.items()} == {
        "many": (0.5, 2),
        "few": (1.0, 1),
        "overall": (pytest.approx(2 / 3), 3),
    }


def test_the_measurement_is_an_accuracy_over_all_tasks():
    tasks = scenario(LABELS, train=TRAIN, tasks=2)
    numbers, _ = found(shots.build(shots.Config()), Lookup(scores=scores_of(GUESSES, 4)), tasks)
    assert values(numbers, "accuracy", "overall") == pytest.approx({-1: 0.6})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"many": 20}, "few must be below many, got few 20 and many 20"),
        ({"many": 10, "few": 12}, "few must be below many"),
        ({"few": -1}, "few must not be negative, got -1"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        settings(shots.Config, wrong, where="tests")

"""Search spaces: what a file may say, and the values that come of it."""

import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.errors import UserError
from harness.space import Choices, Range, corners, grid, read_space, size

SPACE = {
    "lr": {"log_uniform": [1e-3, 1], "points": 4},
    "omega": {"uniform": [0, 2], "points": 3},
    "examples": {"integers": [2, 4]},
    "slots": {"log_integers": [10, 1000], "points": 3},
    "policy": {"choices": ["fifo", None, True, 3]},
}


def read(**raw):
    return read_space(raw, where="s.yaml: space")


def test_a_space_is_what_optuna_is_asked():
    space = read(**SPACE)
    assert {name: one.distribution() for name, one in space.items()} == {
        "lr": FloatDistribution(1e-3, 1, log=True),
        "omega": FloatDistribution(0, 2),
        "examples": IntDistribution(2, 4),
        "slots": IntDistribution(10, 1000, log=True),
        "policy": CategoricalDistribution(("fifo", None, True, 3)),
    }


def test_a_grid_is_the_product_of_evenly_spaced_points_on_each_scale():
    space = read(**SPACE)
    assert {name: one.grid() for name, one in space.items()} == {
        "lr": [0.001, 0.01, 0.1, 1.0],
        "omega": [0.0, 1.0, 2.0],
        "examples": [2, 3, 4],
        "slots": [10, 100, 1000],
        "policy": ["fifo", None, True, 3],
    }
    small = read(a={"choices": [1, 2]}, b={"integers": [5, 6]})
    assert grid(small, where="s") == [
        {"a": 1, "b": 5},
        {"a": 1, "b": 6},
        {"a": 2, "b": 5},
        {"a": 2, "b": 6},
    ]


def test_sizes():
    assert size(read(a={"choices": [1, 2]}, b={"integers": [5, 7]})) == 6
    assert math.isinf(size(read(a={"choices": [1, 2]}, lr={"uniform": [0, 1]})))


def test_values_are_rounded_to_what_one_would_type_and_stay_inside():
    lr = Range(0.00123449, 0.98768, whole=False, log=True)
    assert lr.rounded(0.0123456789) == 0.01235
    assert lr.rounded(0.00123449) == 0.00123449  # 0.001234 would be outside
    assert lr.rounded(0.98767) == 0.98768  # so would 0.9877
    assert Range(1, 9, whole=True, log=False).rounded(3) == 3


@pytest.mark.parametrize(
    ("one", "inside", "outside"),
    [
        (Range(0.1, 1, whole=False, log=False), [0.1, 1, 0.5], [0.09, 1.1, True, "a", None]),
        (Range(1, 3, whole=True, log=False), [1, 3], [0, 2.5, True]),
        (Choices(("a", 1, None)), ["a", 1, None], ["b", True, 1.0]),
    ],
)
def test_what_lies_in_a_range(one, inside, outside):
    assert all(map(one.contains, inside))
    assert not any(map(one.contains, outside))


def test_corners_are_the_ends_and_all_choices():
    space = read(lr={"uniform": [0, 1]}, policy={"choices": ["a", "b", "c"]})
    assert list(corners(space)) == [
        ("lr", 0.0),
        ("lr", 1.0),
        ("policy", "a"),
        ("policy", "b"),
        ("policy", "c"),
    ]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "space: empty; name at least one hyperparameter"),
        ({"lr": {"uniform": [1, 0.1]}}, r"lr: uniform: upside down: \[1.0, 0.1\]"),
        ({"lr": {"uniform": [1, 1]}}, "lr: uniform: .*one point is nothing to search"),
        ({"a": {"choices": ["x"]}}, "a: choices: one point is nothing to search"),
        ({"lr": {"uniform": [0, 1], "points": 1}}, "points: 1: one point is nothing"),
        ({"lr": {"log_uniform": [0, 1]}}, "lr: log_uniform: .* must begin above 0"),
        (
            {"lr": {"uniformly": [0, 1]}},
            "unknown kind of range 'uniformly'; did you mean 'uniform'",
        ),
        ({"lr": {"uniform": [0, "1"]}}, "lr: uniform: expected numbers, got '1'"),
        ({"lr": {"uniform": [0, math.inf]}}, "lr: uniform: expected numbers, got inf"),
        ({"lr": {"uniform": [0, True]}}, "lr: uniform: expected numbers, got True"),
        ({"n": {"integers": [0, 1.5]}}, "n: integers: expected whole numbers, got 1.5"),
        ({"lr": {"uniform": [0, 1, 2]}}, r"lr: uniform: expected \[LOW, HIGH\]"),
        ({"lr": {"uniform": 3}}, r"lr: uniform: expected \[LOW, HIGH\], got 3"),
        ({"lr": 3}, "lr: expected a mapping"),
        ({"lr": {}}, "lr: expected one of uniform, log_uniform"),
        ({"lr": {"uniform": [0, 1], "choices": [1, 2]}}, "lr: expected one of"),
        ({"a": {"choices": [1, 1]}}, "a: choices: 1, 1: one is listed twice"),
        ({"a": {"choices": [[1], [2]]}}, "a: choices: expected a list of numbers, words"),
        ({"a": {"choices": "ab"}}, "a: choices: expected a list"),
        ({"a": {"choices": [1, 2], "points": 2}}, "choices have no points"),
    ],
)
def test_what_does_not_fit_is_named(raw, message):
    with pytest.raises(UserError, match=message):
        read_space(raw, where="s.yaml: space")


def test_a_grid_of_a_continuous_range_needs_points():
    with pytest.raises(UserError, match="lr: a grid needs points"):
        grid(read(lr={"uniform": [0, 1]}), where="s.yaml")

"""Spectra that are known beforehand."""

import numpy as np
import pytest
import torch
from lookup import Lookup, found, scenario, values

from harness.evaluators import spectrum

EVALUATOR = spectrum.build(spectrum.Config())


def rotated(diagonal, seed=0):
    """A covariance with these eigenvalues, and features of it that have it exactly."""
    rng = np.random.default_rng(seed)
    dims = len(diagonal)
    # Plus and minus the square root along each axis: centred, with covariance 2 * l / (N - 1).
    axes = np.sqrt(diagonal)[:, None] * np.eye(dims)
    features = np.concatenate([axes, -axes]) * np.sqrt((2 * dims - 1) / 2)
    turn = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    return features @ turn + rng.normal(size=dims)


def summary(features):
    return dict(spectrum.summary(spectrum.eigenvalues(features)))


def test_the_eigenvalues_are_those_put_in():
    wanted = [5.0, 3.0, 1.0, 0.5]
    np.testing.assert_allclose(spectrum.eigenvalues(rotated(wanted)), wanted, rtol=1e-12)


def test_uniform_eigenvalues_fill_every_direction():
    numbers = summary(rotated([0.7] * 10))
    assert numbers["effective_rank"] == pytest.approx(10)
    assert numbers["participation_ratio"] == pytest.approx(10)
    assert [numbers[f"dims_{p}"] for p in (90, 95, 99)] == [9, 10, 10]


def test_a_single_direction_has_rank_one():
    numbers = summary(np.outer(np.arange(9.0), [1.0, 2.0, -1.0, 0.5]))
    assert list(numbers.values()) == pytest.approx([1, 1, 1, 1, 1])


def test_numbers_of_unequal_eigenvalues_by_hand():
    numbers = summary(rotated([8.0, 1.0, 0.6, 0.4]))
    p = np.array([0.8, 0.1, 0.06, 0.04])
    assert numbers["effective_rank"] == pytest.approx(np.prod(p**-p))
    assert numbers["participation_ratio"] == pytest.approx(1 / (0.64 + 0.01 + 0.0036 + 0.0016))
    assert [numbers[f"dims_{p}"] for p in (90, 95, 99)] == [2, 3, 4]


@pytest.mark.parametrize("shape", [(200, 30), (20, 50)])
def test_a_matrix_of_rank_r_has_r_eigenvalues_and_they_are_numpy_s(shape):
    rng = np.random.default_rng(1)
    count, dims = shape
    features = rng.normal(size=(count, 4)) @ rng.normal(size=(4, dims)) + 3
    values = spectrum.eigenvalues(features)
    assert values.shape == (dims,)
    assert (values[:4] > 1).all()
    assert (values[4:] < 1e-10).all()
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values[:4], np.linalg.eigvalsh(np.cov(features.T))[::-1][:4])


def test_more_images_than_dimensions_or_fewer_come_to_the_same():
    """The same images three times over change each eigenvalue by a known factor alone."""
    rng = np.random.default_rng(2)
    few = rng.normal(size=(8, 12))
    many = np.concatenate([few] * 3)
    factor = (3 / 23) / (1 / 7)
    np.testing.assert_allclose(
        spectrum.eigenvalues(many), factor * spectrum.eigenvalues(few), atol=1e-12
    )


def test_features_far_from_zero_lose_no_variance():
    features = rotated([4.0, 2.0, 1.0])
    np.testing.assert_allclose(spectrum.eigenvalues(features + 1e6), [4, 2, 1], rtol=1e-6)


def method(seed=3, classes=4, each=6):
    rng = torch.Generator().manual_seed(seed)
    labels = [label for label in range(classes) for _ in range(each)]
    features = torch.randn(200, 5, generator=rng)
    return Lookup(features=features), scenario(labels, tasks=2), features


def test_the_images_of_the_tasks_seen_are_measured():
    lookup, tasks, features = method()
    for after_task, images in ((0, 12), (1, 24)):
        numbers, details = found(EVALUATOR, lookup, tasks, after_task=after_task)
        seen = features[:images].double().numpy()
        values_ = np.linalg.eigvalsh(np.cov(seen.T))[::-1]
        columns = details["spectrum"]
        assert columns["index"].tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(columns["eigenvalue"], values_)
        np.testing.assert_allclose(columns["share"], values_ / values_.sum())
        assert {m.n for m in numbers.values()} == {images}
        assert set(numbers) == {
            (name, -1, None)
            for name in ("effective_rank", "participation_ratio", "dims_90", "dims_95", "dims_99")
        }
        p = values_ / values_.sum()
        assert values(numbers, "effective_rank") == pytest.approx({-1: np.exp(-(p @ np.log(p)))})


@pytest.mark.parametrize("count", [1, 40])
def test_features_that_do_not_vary_give_nothing(count):
    lookup = Lookup(features=torch.full((200, 3), 0.1))
    assert found(EVALUATOR, lookup, scenario([0] * count, tasks=1)) == ({}, {})


def test_features_that_do_not_vary_have_no_eigenvalue_in_spite_of_rounding():
    for count in range(2, 60):
        assert not spectrum.eigenvalues(np.full((count, 3), 0.1)).any()


def test_needs_no_classifier():
    assert not spectrum.build.needs_predictions

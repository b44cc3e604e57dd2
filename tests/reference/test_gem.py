"""GEM against its formula: past gradients one task after the other, the program by brute force."""

from itertools import product

import numpy as np
import pytest
import torch
from replay_steps import backward, counts, gradient, gradient_of, rows_of, started, undone
from tiny import tiny_run, tiny_trial

from harness.errors import UserError
from harness.protocol import check_method
from methods.parts.dual_program import solve_dual
from methods.supervised.gem import Config

RIDGE = 1e-3


def best_of_all_active_sets(gram, products, margin, ridge=RIDGE):
    """Solve the program for every choice of variables that are at their bound; the best."""
    a = gram + ridge * np.eye(len(gram))
    best, lowest = None, np.inf
    for bound in product([False, True], repeat=len(gram)):
        fixed = np.array(bound)
        v, free = np.full(len(gram), float(margin)), ~fixed
        right = -products[free] - a[np.ix_(free, fixed)] @ v[fixed]
        v[free] = np.linalg.solve(a[np.ix_(free, free)], right)
        value = v @ a @ v / 2 + products @ v
        if (v >= margin - 1e-12).all() and value < lowest:
            best, lowest = v, value
    return best


def problem(k, dim, seed):
    """Gradients of k past tasks, and one that points away from most of them."""
    rng = np.random.default_rng(seed)
    past = rng.normal(size=(k, dim)) * rng.uniform(0.1, 3, size=(k, 1))
    return past, rng.normal(size=dim) - past.sum(0)


def solved(past, g, margin):
    return solve_dual(past @ past.T, past @ g, margin=margin, ridge=RIDGE)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("k", range(1, 7))
@pytest.mark.parametrize("dim", [2, 20])  # linearly dependent gradients, and independent ones
def test_the_program_is_solved_as_by_trying_all_active_sets(k, dim, margin):
    for seed in range(10):
        past, g = problem(k, dim, seed)
        expected = best_of_all_active_sets(past @ past.T, past @ g, margin)
        np.testing.assert_allclose(solved(past, g, margin), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("k", [6, 19])
def test_the_solution_meets_the_conditions_of_optimality(k, margin):
    for seed in range(10):
        past, g = problem(k, k + 5, seed)
        past[-1] = past[0]  # two tasks that ask for the same
        v = solved(past, g, margin)
        slope = past @ (past.T @ v) + RIDGE * v + past @ g
        assert (v >= margin).all()
        assert (slope >= -1e-8).all()
        np.testing.assert_allclose((v - margin) * slope, 0, atol=1e-8)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_new_gradient_opposes_no_past_one(margin):
    for seed in range(20):
        past, g = problem(4, 30, seed)
        v = solved(past, g, margin)
        assert (past @ (past.T @ v + g) >= -RIDGE * v - 1e-8).all()


@pytest.mark.parametrize(("margin", "expected"), [(0.0, 1 / 1.001), (0.5, 1 / 1.001), (2.0, 2.0)])
def test_one_past_task_by_hand(margin, expected):
    past, g = np.array([[1.0, 0.0]]), np.array([-1.0, 3.0])
    np.testing.assert_allclose(solved(past, g, margin), [expected])


def test_a_gram_matrix_that_rounding_made_indefinite_is_solved_all_the_same():
    past, g = problem(5, 2, seed=0)
    gram = past @ past.T - 1e-2 * np.eye(5)
    assert np.linalg.eigvalsh(gram + RIDGE * np.eye(5)).min() < 0
    v = solve_dual(gram, past @ g, margin=0.0, ridge=RIDGE)
    assert np.isfinite(v).all()
    assert (v >= 0).all()


def past_gradients(method):
    """The gradient of every past task over all its images, (k, P); draws as a step would."""
    held = method.exemplars.everything()
    of_task = [held["task"] == position for position in held["task"].unique()]
    return np.stack([gradient_of(method, held["x"][of], held["y"][of]) for of in of_task])


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("tasks", [1, 3])
def test_a_step_takes_the_gradient_that_the_program_gives(tasks, margin):
    run, batches = started("gem", tasks, config=Config(margin=margin))
    with undone(run.method):
        past = past_gradients(run.method)
    g = backward(run.method, batches[0])
    assert (past @ g < 0).any()  # or the case shows nothing
    v = best_of_all_active_sets(past @ past.T, past @ g, margin)
    run.method.adjust_gradients()
    found = gradient(run.method)
    size = np.linalg.norm(found)
    np.testing.assert_allclose(found, past.T @ v + g, rtol=0, atol=1e-4 * size)
    assert (past @ found >= -RIDGE * v - 1e-4 * size * np.linalg.norm(past, axis=1)).all()


def test_one_opposed_task_among_others_is_enough():
    run, _ = started("gem", tasks=3, config=Config(margin=0.0))
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    with undone(run.method):
        past = past_gradients(run.method)
    g = backward(run.method, batch)
    assert (past @ g < 0).any()
    assert (past @ g > 0).any()
    v = best_of_all_active_sets(past @ past.T, past @ g, margin=0.0)
    run.method.adjust_gradients()
    found = gradient(run.method)
    np.testing.assert_allclose(found, past.T @ v + g, rtol=0, atol=1e-4 * np.linalg.norm(found))


def test_a_step_that_opposes_no_past_task_is_the_gradient_itself():
    run, _ = started("gem", tasks=1)
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    with undone(run.method):
        past = past_gradients(run.method)
    g = backward(run.method, batch)
    assert (past @ g > 0).all()
    run.method.adjust_gradients()
    np.testing.assert_array_equal(gradient(run.method), g)


def test_without_a_memory_the_first_task_is_finetuned():
    ours, theirs = tiny_run("gem"), tiny_run("finetune")
    for run in (ours, theirs):
        run._learn(run.scenario.tasks[0])
    for name, value in theirs.method.net.state_dict().items():
        assert torch.equal(ours.method.net.state_dict()[name], value), name


def test_the_classes_seen_share_the_memory_and_keep_their_first_images():
    run = tiny_run("gem")
    before = None
    for task in run.scenario.tasks[:4]:
        run._learn(task)
        held = {k: v.clone() for k, v in run.method.exemplars.everything().items()}
        seen = 2 * (task.position + 1)
        assert counts(held["y"]) == dict.fromkeys(range(seen), 40 // seen)
        assert torch.equal(held["task"], held["y"] // 2)
        rows = task.train[
            rows_of(held["x"][held["task"] == task.position], train_images(run, task))
        ]
        labels = run.scenario.dataset.train.y[rows]
        assert torch.equal(labels, held["y"][held["task"] == task.position])
        for label in range(seen - 2):
            old = before["x"][before["y"] == label]
            assert torch.equal(held["x"][held["y"] == label], old[: 40 // seen])
        before = held


def train_images(run, task):
    return run.scenario.dataset.train.x[task.train]


def test_a_buffer_with_less_than_an_image_a_class_is_refused():
    check_method(tiny_trial("gem", buffer_size=10).spec, where="tests")
    with pytest.raises(UserError, match="an image of each of the 10 classes"):
        check_method(tiny_trial("gem", buffer_size=9).spec, where="tests")


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"ridge": 0.0}])
def test_settings_without_a_unique_solution_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)

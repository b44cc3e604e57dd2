"""The metrics against numbers worked out by hand and against plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
from stores import Trial, rows, seen, write_trial

from analysis.load import load
from analysis.metrics import (
    METRICS,
    accuracy_curve,
    any_time_accuracy,
    backward_transfer,
    clear_accuracy,
    clear_backward_transfer,
    clear_forward_transfer,
    continual_accuracy,
    continual_accuracy_all,
    continual_accuracy_weighted,
    final_accuracy,
    final_accuracy_weighted,
    forgetting,
    forgetting_first,
    forgetting_first_all,
    forgetting_first_relative,
    forgetting_max_all,
    forgetting_max_relative,
    forgetting_with_last,
    forward_transfer,
    future_accuracy,
    learning_accuracy,
    next_domain_accuracy,
    plasticity,
    stability,
)
from analysis.summary import accuracy_matrix, summarise

A = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.7, 1.0]])

# Task 0 ends better than it ever was, task 1 worse: the variants of forgetting all differ here.
RISING = seen(np.array([[0.5, 0, 0], [0.6, 0.7, 0], [0.8, 0.4, 0.9]]))

NAN = float("nan")
ONE_TASK = np.array([[0.8]])


def extras(tasks: int) -> dict[str, np.ndarray]:
    return {
        "before": np.full(tasks, 0.1),
        "n": np.arange(1.0, tasks + 1),
        "samples": np.cumsum(np.arange(1.0, tasks + 1)),
    }


def test_continual_accuracy_averages_the_tasks_seen_and_then_the_stages():
    assert continual_accuracy(A) == pytest.approx((0.9 + (0.6 + 0.8) / 2 + 2.2 / 3) / 3)


def test_the_accuracy_curve_has_a_point_after_each_task():
    np.testing.assert_allclose(accuracy_curve(A), [0.9, 0.7, 2.2 / 3])


def test_final_accuracy_averages_the_last_row():
    assert final_accuracy(A) == pytest.approx(2.2 / 3)


def test_continual_accuracy_all_averages_unseen_tasks_too():
    assert continual_accuracy_all(A) == pytest.approx(5.1 / 9)


def test_weighted_accuracies_count_images_and_not_tasks():
    n = np.array([10.0, 30.0, 60.0])
    assert final_accuracy_weighted(A, n) == pytest.approx((5 + 21 + 60) / 100)
    assert continual_accuracy_weighted(A, n) == pytest.approx((0.9 + (6 + 24) / 40 + 0.86) / 3)


def test_a_task_without_test_images_has_no_weight_and_alone_no_accuracy():
    n = np.array([10.0, 0.0, 30.0])
    assert final_accuracy_weighted(A, n) == pytest.approx((5 + 30) / 40)
    assert math.isnan(final_accuracy_weighted(A, np.zeros(3)))
    assert math.isnan(continual_accuracy_weighted(A, np.array([0.0, 1.0, 1.0])))


def test_forgetting_compares_with_the_best_before_the_last_task():
    assert forgetting(A) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.7)) / 2)
    assert forgetting(RISING) == pytest.approx(((0.6 - 0.8) + (0.7 - 0.4)) / 2)


def test_forgetting_with_last_is_never_negative_for_a_task():
    assert forgetting_with_last(RISING) == pytest.approx((0 + 0.3) / 2)


def test_forgetting_first_compares_with_the_first_measurement():
    assert forgetting_first(RISING) == pytest.approx(((0.5 - 0.8) + (0.7 - 0.4)) / 2)
    assert backward_transfer(RISING) == pytest.approx(((0.8 - 0.5) + (0.4 - 0.7)) / 2)
    assert backward_transfer(A) == pytest.approx(((0.5 - 0.9) + (0.7 - 0.8)) / 2)


def test_forgetting_of_probes_counts_the_last_task_with_zero():
    assert forgetting_first_all(A) == pytest.approx((0.4 + 0.1 + 0) / 3)
    assert forgetting_max_all(RISING) == pytest.approx((0 + 0.3 + 0) / 3)


def test_relative_forgetting_of_probes_is_the_share_of_each_task_lost():
    assert forgetting_first_relative(A) == pytest.approx((0.4 / 0.9 + 0.1 / 0.8 + 0) / 3)
    assert forgetting_max_relative(A) == pytest.approx((0.4 / 0.9 + 0.1 / 0.8 + 0) / 3)
    assert forgetting_first_relative(RISING) == pytest.approx((-0.3 / 0.5 + 0.3 / 0.7 + 0) / 3)
    assert forgetting_max_relative(RISING) == pytest.approx((0 / 0.8 + 0.3 / 0.7 + 0) / 3)


def test_relative_forgetting_of_what_was_never_known_is_undefined():
    a = np.array([[0.0, 0.0], [0.5, 0.6]])  # the first task was at 0 when learned, and then rose
    assert math.isnan(forgetting_first_relative(a))
    assert forgetting_max_relative(a) == 0
    a[1, 1] = 0
    assert math.isnan(forgetting_max_relative(a))
    stack = np.stack([a, A[:2, :2]])
    assert np.isnan(forgetting_max_relative(stack)).tolist() == [True, False]


def test_a_task_that_was_forgotten_altogether_is_lost_to_its_whole():
    a = np.array([[0.3, 0.0], [0.0, 0.9]])
    assert forgetting_max_relative(a) == pytest.approx((1 + 0) / 2)


def test_next_domain_accuracy_is_the_mean_above_the_diagonal():
    assert next_domain_accuracy(A) == pytest.approx((0.2 + 0.3) / 2)


def test_clear_averages_the_entries_below_on_and_above_the_diagonal():
    assert clear_accuracy(A) == pytest.approx((0.9 + 0.6 + 0.8 + 0.5 + 0.7 + 1.0) / 6)
    assert clear_backward_transfer(A) == pytest.approx((0.6 + 0.5 + 0.7) / 3)
    assert clear_forward_transfer(A) == pytest.approx((0.2 + 0.1 + 0.3) / 3)
    parts = 6 * clear_accuracy(A) + 3 * clear_forward_transfer(A)
    assert parts == pytest.approx(9 * continual_accuracy_all(A))


def test_forward_transfer_is_the_gain_over_the_initial_weights():
    before = np.array([0.5, 0.1, 0.05])
    assert forward_transfer(A, before) == pytest.approx(((0.2 - 0.1) + (0.3 - 0.05)) / 2)


def test_future_accuracy_averages_unseen_tasks_by_stage():
    assert future_accuracy(A) == pytest.approx(((0.2 + 0.1) / 2 + 0.3) / 2)


def test_learning_accuracy_is_the_mean_of_the_diagonal():
    assert learning_accuracy(A) == pytest.approx(0.9)


def test_plasticity_is_the_newest_task_and_stability_the_others():
    assert plasticity(A) == 1.0
    assert stability(A) == pytest.approx(0.6)


def test_any_time_accuracy_weighs_tasks_by_the_images_drawn():
    samples = np.array([100.0, 100.0, 400.0])  # 100, none and 300 images drawn
    assert any_time_accuracy(A, samples) == pytest.approx((0.9 * 100 + 2.2 / 3 * 300) / 400)


def test_any_time_accuracy_of_equal_tasks_is_continual_accuracy():
    assert any_time_accuracy(A, np.array([50.0, 100.0, 150.0])) == pytest.approx(
        float(continual_accuracy(A))
    )


def test_any_time_accuracy_without_images_is_undefined():
    assert math.isnan(any_time_accuracy(A, np.zeros(3)))


@pytest.mark.parametrize("name", METRICS)
def test_one_task_gives_its_accuracy_no_loss_or_nothing(name):
    expected = {
        **dict.fromkeys(("CA", "FA", "CA_all", "CA_weighted", "FA_weighted"), 0.8),
        **dict.fromkeys(("learning_accuracy", "plasticity", "any_time", "CLEAR_accuracy"), 0.8),
        **dict.fromkeys(("F_first", "F_max", "F_first_relative", "F_max_relative"), 0.0),
    }
    value = METRICS[name](ONE_TASK, extras(1))
    assert value == pytest.approx(expected.get(name, NAN), nan_ok=True)


@pytest.mark.parametrize("name", METRICS)
def test_a_last_row_alone_defines_only_what_needs_no_more(name):
    a = np.full((3, 3), np.nan)
    a[-1] = A[-1]
    value = float(METRICS[name](a, extras(3)))
    if name in ("FA", "FA_weighted", "plasticity", "stability"):
        assert value == pytest.approx(float(METRICS[name](A, extras(3))))
    else:
        assert math.isnan(value)


@pytest.mark.parametrize("name", METRICS)
def test_unseen_tasks_matter_only_to_the_metrics_about_them(name):
    value = float(METRICS[name](seen(A), extras(3)))
    if name in ("CA_all", "FWT", "future_accuracy", "next_domain", "CLEAR_FWT"):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(float(METRICS[name](A, extras(3))))


def test_a_missing_stage_leaves_continual_accuracy_undefined():
    a = A.copy()
    a[1] = np.nan
    assert math.isnan(continual_accuracy(a))
    assert math.isnan(forgetting(a))
    assert final_accuracy(a) == final_accuracy(A)


@pytest.mark.parametrize("name", METRICS)
def test_a_stack_gives_what_its_matrices_give(name):
    stack = np.random.default_rng(0).random((4, 5, 5))
    inputs = {key: np.tile(value, (4, 1)) for key, value in extras(5).items()}
    found = METRICS[name](stack, inputs)
    single = [METRICS[name](a, extras(5)) for a in stack]
    np.testing.assert_allclose(found, single)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_leaves_the_matrix_as_it_was(name):
    a = A.copy()
    METRICS[name](a, extras(3))
    np.testing.assert_array_equal(a, A)


def test_the_forgetting_variants_keep_their_order():
    for a in np.random.default_rng(1).random((50, 6, 6)):
        assert forgetting_with_last(a) >= max(0.0, float(forgetting(a))) - 1e-12
        assert forgetting_with_last(a) >= forgetting_first(a) - 1e-12
        assert forgetting_max_all(a) * 6 == pytest.approx(float(forgetting_with_last(a)) * 5)


def loops(a: np.ndarray) -> dict[str, float]:
    """Six metrics as their papers write them, one index at a time."""
    tasks = range(len(a))
    last = len(a) - 1
    return {
        "CA": sum(sum(a[k, i] for i in tasks if i <= k) / (k + 1) for k in tasks) / len(a),
        "FA": sum(a[last, i] for i in tasks) / len(a),
        "forgetting": sum(
            max(a[k, i] for k in tasks if i <= k < last) - a[last, i] for i in range(last)
        )
        / last,
        "F_max": sum(max(a[k, i] for k in tasks if k >= i) - a[last, i] for i in tasks) / len(a),
        "BWT": sum(a[last, i] - a[i, i] for i in range(last)) / last,
        "learning_accuracy": sum(a[i, i] for i in tasks) / len(a),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six trials of two lengths, class-incremental and probed, with task-IL and unrelated rows."""
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(2)
    truth = {}
    for seed in range(3):
        for method, tasks, primary in (("er", 4, "classifier"), ("climb", 7, "probe_linear")):
            trial = Trial(method, seed, num_tasks=tasks, primary=primary)
            a = rng.random((tasks, tasks))
            task_il = rng.random((tasks, tasks))
            lines = rows(trial, seen(a) if primary == "classifier" else a)
            lines += rows(trial, rng.random((tasks, tasks)), evaluator="probe_knn")
            lines += rows(trial, task_il, metric="accuracy_task_il", before=[0.1] * tasks)
            write_trial(root, trial, lines)
            truth[trial.trial_id] = (a, task_il)
    return load(root), truth


def test_summarise_agrees_with_loops_over_every_trial(store):
    frame, truth = store
    summary = summarise(frame).set_index("trial_id")
    assert set(summary.index) == set(truth)
    for trial_id, (a, _) in truth.items():
        for name, value in loops(a).items():
            assert summary.loc[trial_id, name] == pytest.approx(value)


def test_forward_transfer_of_class_incremental_trials_is_that_of_task_il(store):
    frame, truth = store
    summary = summarise(frame).set_index("trial_id")
    for trial_id, (_, task_il) in truth.items():
        expected = forward_transfer(task_il, np.full(len(task_il), 0.1))
        assert summary.loc[trial_id, "FWT"] == pytest.approx(float(expected))


def test_another_metric_or_evaluator_can_be_summarised(store):
    frame, truth = store
    summary = summarise(frame, "accuracy_task_il").set_index("trial_id")
    for trial_id, (_, task_il) in truth.items():
        assert summary.loc[trial_id, "FA"] == pytest.approx(float(final_accuracy(task_il)))
    primary = summarise(frame)["FA"].to_numpy()
    assert not np.allclose(summarise(frame, evaluator="probe_knn")["FA"], primary)
    assert summarise(frame, evaluator="absent")["FA"].isna().all()


def test_the_matrix_of_a_trial_comes_back_as_stored(store):
    frame, truth = store
    for trial_id, (a, task_il) in truth.items():
        one = frame[frame["trial_id"] == trial_id]
        stored = seen(a) if (one["primary"] == "classifier").all() else a
        np.testing.assert_array_equal(accuracy_matrix(one), stored)
        np.testing.assert_array_equal(accuracy_matrix(one, "accuracy_task_il"), task_il)
        assert np.isnan(accuracy_matrix(one, "absent")).all()


def test_a_matrix_of_two_trials_is_refused(store):
    frame, _ = store
    with pytest.raises(ValueError, match="one trial, not of 6"):
        accuracy_matrix(frame)


def test_validation_images_fill_the_matrix_where_nothing_else_was_measured(tmp_path):
    trial = Trial()
    write_trial(tmp_path, trial, rows(trial, A))
    frame = load(tmp_path).astype({"split": object}).assign(split="validation")
    np.testing.assert_array_equal(accuracy_matrix(frame), A)


def test_only_clean_test_images_fill_the_matrix(tmp_path):
    trial = Trial()
    write_trial(tmp_path, trial, rows(trial, A))
    frame = load(tmp_path).astype({"split": object, "condition": object})
    noisy = frame.assign(condition="gaussian_noise/3", value=0.0)
    held_out = frame.assign(split="validation", value=0.0)
    mixed = pd.concat([frame, noisy, held_out], ignore_index=True)
    np.testing.assert_array_equal(accuracy_matrix(mixed), A)


def test_a_trial_without_accuracy_is_summarised_as_undefined(tmp_path):
    trial = Trial()
    cost = rows(trial, A, metric="parameters", evaluator="cost")
    write_trial(tmp_path, trial, cost)
    summary = summarise(load(tmp_path))
    assert len(summary) == 1
    assert summary[list(METRICS)].isna().all(axis=None)

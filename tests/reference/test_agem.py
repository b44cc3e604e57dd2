"""A-GEM against its formula, computed again from the images of the memory."""

import numpy as np
import pytest
import torch
from replay_steps import backward, counts, gradient, gradient_of, rows_of, started, undone
from tiny import tiny_run, tiny_trial

from harness.errors import UserError
from harness.protocol import check_method
from methods.supervised.agem import Config, without_conflict


def reference_gradient(method):
    """The gradient of a replayed mini-batch, drawn as the next one will be."""
    with undone(method):
        size = method.ctx.training.replay_batch
        old = method.buffer.sample(size, method.ctx.random("replay"))
        return gradient_of(method, old["x"], old["y"])


def step(tasks, **changes):
    """(before, reference, after): the gradients of a first step after `tasks` tasks."""
    run, batches = started("agem", tasks, **changes)
    before = backward(run.method, batches[0])
    reference = reference_gradient(run.method)
    run.method.adjust_gradients()
    return before, reference, gradient(run.method)


def test_a_conflict_is_projected_away_in_a_case_made_by_hand():
    found = without_conflict(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5]))


def test_a_gradient_without_conflict_stays_as_it_is():
    g, r = torch.tensor([0.3, -0.7, 2.0]), torch.tensor([1.0, 0.1, 0.4])
    assert torch.equal(without_conflict(g, r), g)


def test_a_reference_of_zero_changes_nothing():
    g = torch.tensor([0.3, -0.7])
    assert torch.equal(without_conflict(g, torch.zeros(2)), g)


def test_the_step_of_a_new_task_is_the_gradient_without_its_conflict():
    before, reference, after = step(tasks=1)
    assert before @ reference < 0  # or the case shows nothing
    expected = before - (before @ reference) / (reference @ reference) * reference
    np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-6)
    size = np.linalg.norm(after) * np.linalg.norm(reference)
    assert after @ reference >= -1e-5 * size


def test_a_step_that_agrees_with_the_memory_is_the_gradient_itself():
    run, _ = started("agem", tasks=1)
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    before = backward(run.method, batch)
    assert before @ reference_gradient(run.method) > 0
    run.method.adjust_gradients()
    np.testing.assert_array_equal(gradient(run.method), before)


def test_without_a_memory_the_first_task_is_finetuned():
    ours, theirs = tiny_run("agem"), tiny_run("finetune")
    for run in (ours, theirs):
        run._learn(run.scenario.tasks[0])
    for name, value in theirs.method.net.state_dict().items():
        assert torch.equal(ours.method.net.state_dict()[name], value), name


def test_every_task_leaves_its_share_and_every_class_as_many_images():
    run, _ = started("agem", tasks=3)
    held = run.method.buffer.everything()
    assert counts(held["y"]) == dict.fromkeys(range(6), 4)  # 40 images // 5 tasks // 2 classes
    train = run.scenario.dataset.train
    seen = torch.cat([task.train for task in run.scenario.tasks[:3]])
    rows = seen[rows_of(held["x"], train.x[seen])]
    assert torch.equal(train.y[rows], held["y"])


def test_what_does_not_divide_goes_to_one_class_or_the_other():
    run, _ = started("agem", tasks=2, buffer_size=15)
    held = run.method.buffer.everything()["y"]
    assert len(held) == 6  # 15 images // 5 tasks, twice
    assert sorted(counts(held).values()) == [1, 1, 2, 2]


def test_one_mini_batch_of_each_task_can_be_kept_instead():
    run, _ = started("agem", tasks=1, config=Config(fill="one_batch"))
    held = run.method.buffer.everything()
    assert len(held["y"]) == run.method.ctx.training.batch_size
    train, task = run.scenario.dataset.train, run.scenario.tasks[0]
    rows = rows_of(held["x"], train.x[task.train])
    assert len(rows.unique()) == len(rows)


def test_a_reservoir_over_the_stream_can_be_kept_instead():
    run, batches = started("agem", tasks=0, config=Config(fill="reservoir"))
    run.method.observe(batches[0])
    held = run.method.buffer.everything()
    assert torch.equal(held["x"], batches[0].x)
    assert torch.equal(held["y"], batches[0].y)
    run._learn(run.scenario.tasks[1])
    assert len(run.method.buffer) == 40
    assert run.method.buffer.seen == len(batches[0].x) + len(run.scenario.tasks[1].train)


def test_a_buffer_with_less_than_an_image_a_task_is_refused():
    check_method(tiny_trial("agem", buffer_size=5).spec, where="tests")
    with pytest.raises(UserError, match="an image of each of the 5 tasks"):
        check_method(tiny_trial("agem", buffer_size=4).spec, where="tests")

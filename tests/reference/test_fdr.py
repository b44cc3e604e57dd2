"""FDR's distance, its second step and its shares of the memory, computed again."""

import math

import numpy as np
import pytest
import torch
from replay_steps import counts, started, undone, weights
from tiny import tiny_run, tiny_trial, view
from torch.nn import functional as F

from harness.errors import UserError
from harness.protocol import check_method
from methods.supervised.fdr import Config, functional_distance


def naive_distance(logits, stored):
    """One image, one class after the other."""
    distances = []
    for now, then in zip(logits.double().tolist(), stored.double().tolist(), strict=True):
        p, q = ([math.exp(z) / sum(map(math.exp, row)) for z in row] for row in (now, then))
        distances.append(math.sqrt(sum((a - b) ** 2 for a, b in zip(p, q, strict=True))))
    return sum(distances) / len(distances)


def test_the_distance_is_the_naive_one():
    rng = torch.Generator().manual_seed(0)
    logits, stored = torch.randn(2, 6, 5, generator=rng)
    found = functional_distance(logits, stored)
    assert found.shape == ()
    assert float(found) == pytest.approx(naive_distance(logits, stored), rel=1e-5)


def test_certainties_of_different_classes_are_the_root_of_two_apart():
    sure = 50 * torch.eye(3)
    assert float(functional_distance(sure[:1], sure[1:2])) == pytest.approx(math.sqrt(2))


def test_a_shift_of_all_logits_is_no_distance():
    logits = torch.tensor([[1.0, 2.0, -1.0]])
    assert float(functional_distance(logits, logits + 3)) == pytest.approx(0, abs=2e-6)


def test_at_distance_zero_the_gradient_is_zero():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    functional_distance(logits, logits.detach()).backward()
    assert torch.equal(logits.grad, torch.zeros(4, 5))


def test_the_second_step_goes_down_the_weighted_distance():
    alpha, lr = 0.7, 0.05
    run, _ = started("fdr", tasks=1, config=Config(alpha=alpha))
    method = run.method
    with torch.no_grad():  # away from where the logits were stored
        method.head.weight.mul_(2)
    before = weights(method)
    with undone(method):
        size = method.ctx.training.replay_batch
        old = method.exemplars.sample(size, method.ctx.random("replay"))
        p = method.net(method.views(old["x"])).softmax(1)
        distance = (p - old["logits"].softmax(1)).norm(dim=1).mean()
        found = torch.autograd.grad(distance, [*method.net.parameters()])
        slope = np.concatenate([g.double().flatten().numpy() for g in found])
    method.after_step()
    assert np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(weights(method), before - lr * alpha * slope, rtol=1e-4, atol=1e-6)


def test_a_step_is_one_on_the_stream_and_then_one_on_the_distance():
    (one, batches), (two, _) = started("fdr", tasks=1), started("fdr", tasks=1)
    batch, method = batches[0], two.method
    one.method.observe(batch)
    logits = method.net(method.views(batch.x))
    method.optimizer.zero_grad()
    F.cross_entropy(logits, batch.y).backward()
    method.optimizer.step()
    between = weights(method)
    method.after_step()
    assert not np.array_equal(between, weights(method))
    np.testing.assert_array_equal(weights(one.method), weights(method))


def test_without_a_memory_the_first_task_is_finetuned():
    ours, theirs = tiny_run("fdr"), tiny_run("finetune")
    for run in (ours, theirs):
        run._learn(run.scenario.tasks[0])
    for name, value in theirs.method.net.state_dict().items():
        assert torch.equal(ours.method.net.state_dict()[name], value), name


def test_tasks_share_the_memory_and_keep_their_first_images():
    run, before = tiny_run("fdr"), None
    for task, share in zip(run.scenario.tasks, (40, 20, 13, 10, 8), strict=True):
        run._learn(task)
        held = {k: v.clone() for k, v in run.method.exemplars.everything().items()}
        assert counts(held["task"]) == dict.fromkeys(range(task.position + 1), share)
        for position in range(task.position):
            for column in ("x", "logits"):
                old = before[column][before["task"] == position]
                assert torch.equal(held[column][held["task"] == position], old[:share])
        before = held


def test_a_task_with_fewer_images_than_its_share_keeps_them_all():
    run = tiny_run("fdr", buffer_size=2000)
    run._learn(run.scenario.tasks[0])
    assert len(run.method.exemplars) == len(run.scenario.tasks[0].train)


def test_the_images_of_a_task_are_drawn_without_regard_to_their_order():
    run, _ = started("fdr", tasks=1)
    train, rows = run.scenario.dataset.train, run.scenario.tasks[0].train
    held = run.method.exemplars.everything()["x"]
    assert not torch.equal(held, train.x[rows[:40]])
    assert len(held.flatten(1).unique(dim=0)) == 40


def test_logits_are_stored_of_the_image_itself_in_eval_mode():
    run, _ = started("fdr", tasks=0)
    method = run.method
    for batch in run._batches(run.scenario.tasks[0]):
        method.observe(batch)
    method.end_task(view(run, 0))
    held = method.exemplars.everything()
    method.net.eval()
    with torch.no_grad():
        expected = method.net(method.ctx.normalize(held["x"]))
    torch.testing.assert_close(held["logits"], expected, rtol=1e-4, atol=1e-5)


def test_a_buffer_with_less_than_an_image_a_task_is_refused():
    check_method(tiny_trial("fdr", buffer_size=5).spec, where="tests")
    with pytest.raises(UserError, match="an image of each of the 5 tasks"):
        check_method(tiny_trial("fdr", buffer_size=4).spec, where="tests")


def test_a_distance_that_does_not_count_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        Config(alpha=0.0)

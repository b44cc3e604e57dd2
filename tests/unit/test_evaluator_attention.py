"""Grad-CAM on a network whose maps can be worked out by hand, and the evaluator around it."""

import numpy as np
import pytest
import torch
from tiny import finish, tiny_run

from analysis.records import records
from harness.evaluators import attention
from harness.measure import Checkpoint, Cost
from methods.parts.grad_cam import grad_cam


def checkpoint(run, after_task):
    cost = Cost(0.0, 0.0, None, 0)
    return Checkpoint(run.method, run.scenario, after_task, split="test", seed=0, cost=lambda: cost)


@pytest.fixture(scope="module")
def run():
    run = tiny_run("finetune")
    finish(run)
    return run


def details(run, after_task=4, **settings):
    evaluator = attention.build(attention.Config(**settings))
    return list(evaluator.evaluate(checkpoint(run, after_task)))


def test_behind_a_mean_and_a_linear_layer_the_weights_are_those_of_the_class():
    torch.manual_seed(0)
    maps, weight = torch.randn(3, 4, 5, 6), torch.randn(7, 4)
    y = torch.tensor([2, 0, 6])
    found = grad_cam(maps, lambda a: a.mean((2, 3)) @ weight.T, y)
    for i in range(3):
        by_hand = sum(weight[y[i], k] * maps[i, k] for k in range(4)) / 30
        assert torch.allclose(found[i], by_hand.clamp(min=0), atol=1e-6)


def test_evidence_lies_where_the_class_was_put():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 2], maps[0, 1, 3, 3] = 1.0, 1.0
    scores = torch.eye(2)
    for label, place in ((0, 6), (1, 15)):
        found = grad_cam(maps, lambda a: a.sum((2, 3)) @ scores, torch.tensor([label]))
        assert found.flatten().argmax() == place
        assert int((found > 0).sum()) == 1


def test_maps_are_as_large_as_the_image_and_end_at_one():
    wide = attention.enlarged(torch.tensor([[[0.0, 2.0]], [[0.0, 0.0]]]), (3, 8))
    assert wide.shape == (2, 24)
    assert wide.amax(1).tolist() == [1.0, 0.0]
    assert wide.min() == 0


def test_the_same_images_are_shown_after_every_task(run):
    (before,), (after,) = details(run, 1), details(run, 4)
    assert len(before.columns["image"]) == 4
    assert len(after.columns["image"]) == 10
    assert (before.columns["image"] == after.columns["image"][:4]).all()
    assert before.columns["task"].tolist() == [0, 0, 1, 1]
    assert sorted(after.columns["label"]) == list(range(10))  # one of each class of a task
    test = run.scenario.dataset.test
    pixels = after.columns["pixels"].reshape(-1, *test.x.shape[1:])
    assert (pixels == test.x[after.columns["image"]].numpy()).all()
    assert (test.y[after.columns["image"]].numpy() == after.columns["label"]).all()


def test_the_maps_are_those_of_the_network(run):
    (found,) = details(run)
    x = run.scenario.dataset.test.x[found.columns["image"]]
    y = torch.from_numpy(found.columns["label"])
    backbone, head = run.method.backbone.eval(), run.method.head
    maps = run.method.ctx.normalize(x)
    for stage in backbone.stages:
        maps = stage(maps)
    maps.retain_grad()
    head(backbone.pool(maps)).gather(1, y[:, None]).sum().backward()
    by_hand = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).clamp(min=0)
    wide = attention.enlarged(by_hand.detach(), (8, 8)).half().numpy()
    np.testing.assert_allclose(found.columns["map"].astype(float), wide.astype(float), atol=2e-3)
    assert found.columns["map"].max() == 1


def test_looking_leaves_no_gradient_and_the_mode_as_it_was(run):
    run.method.net.zero_grad(set_to_none=True)
    run.method.net.train()
    details(run)
    assert all(p.grad is None for p in run.method.net.parameters())
    assert all(module.training for module in run.method.net.modules())


@pytest.mark.parametrize("name", ["pec", "cls_er", "pnn"])
def test_a_method_that_embeds_in_another_way_gives_nothing(name):
    assert details(tiny_run(name), 0) == []


def test_a_network_without_maps_gives_nothing():
    assert details(tiny_run("finetune", backbone="mlp"), 0) == []


def test_a_trial_stores_the_maps_of_every_task(tmp_path):
    run = tiny_run("finetune", evaluators=["classifier", "attention", "cost"])
    run.records = tmp_path / "records" / "trial"
    finish(run)
    found = records(tmp_path, "trial", "attention")
    assert found.groupby("after_task").size().tolist() == [2, 4, 6, 8, 10]
    assert len(found["map"].iloc[0]) == 64


def test_at_least_one_image_is_asked_for():
    with pytest.raises(ValueError, match="per_task must be at least 1, got 0"):
        attention.Config(per_task=0)

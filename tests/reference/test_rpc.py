"""RPC: the fixed classifier, what its memory keeps, its loss."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_run, tiny_trial
from torch.nn import functional as F

from harness import protocol
from harness.errors import UserError
from methods.parts.polytope import SimplexClassifier, regular_simplex
from methods.supervised.rpc import RPC, Config


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_the_corners_are_unit_vectors_as_far_from_each_other_as_can_be(classes):
    corners = regular_simplex(classes)
    assert corners.shape == (classes - 1, classes)
    for one, other in itertools.combinations_with_replacement(range(classes), 2):
        cosine = sum((corners[:, one].double() * corners[:, other].double()).tolist())
        wanted = 1.0 if one == other else -1 / (classes - 1)
        assert cosine == pytest.approx(wanted, abs=1e-5)
    torch.testing.assert_close(corners.sum(1), torch.zeros(classes - 1), rtol=0, atol=1e-5)


def test_two_classes_are_the_two_directions_of_a_line():
    assert torch.allclose(regular_simplex(2), torch.tensor([[1.0, -1.0]]))


def test_one_class_has_no_simplex():
    with pytest.raises(ValueError, match="2 corners or more, got 1"):
        regular_simplex(1)
    with pytest.raises(ValueError, match="2 classes or more"):
        RPC.check(Config(), SimpleNamespace(num_classes=1, task_classes=(1,)))


def test_a_vector_at_a_corner_has_the_largest_logit_there():
    head = SimplexClassifier(10)
    logits = head(head.corners.T.contiguous())
    assert torch.equal(logits.argmax(1), torch.arange(10))


def test_the_classifier_is_neither_trained_nor_saved():
    run = tiny_run("rpc")
    before = run.method.head[1].corners.clone()
    run._learn(run.scenario.tasks[0])
    assert torch.equal(run.method.head[1].corners, before)
    assert not [name for name in run.method.state_dict()["net"] if "corners" in name]
    dim = run.method.backbone.feature_dim
    backbone = sum(p.numel() for p in run.method.backbone.parameters())
    assert run.method.parameters() == backbone + dim * 9 + 9


@pytest.mark.parametrize(
    ("capacity", "kept"),
    [
        # After task t the old classes have M // (2 t + 2) each, the two new ones what remains.
        (40, [[20, 20], [10, 10, 10, 10], [6, 6, 6, 6, 8, 8]]),
        (41, [[20, 21], [10, 10, 10, 11], [6, 6, 6, 6, 8, 9]]),
        (10, [[5, 5], [2, 2, 3, 3], [1, 1, 1, 1, 3, 3]]),
    ],
)
def test_every_old_class_keeps_its_share_and_the_new_ones_divide_the_rest(capacity, kept):
    run = tiny_run("rpc", buffer_size=capacity)
    for task, wanted in zip(run.scenario.tasks, kept, strict=False):
        run._learn(task)
        counts = run.method.exemplars.everything()["y"].bincount().tolist()
        new = task.classes.start
        assert counts[:new] == wanted[:new]
        assert sorted(counts[new:]) == sorted(wanted[new:])


def test_what_does_not_divide_goes_to_no_class_in_particular():
    larger = set()
    for seed in range(6):
        run = tiny_run("rpc", buffer_size=41, seed=seed)
        run._learn(run.scenario.tasks[0])
        larger.add(run.method.exemplars.everything()["y"].bincount().argmax().item())
    assert larger == {0, 1}


def test_an_old_class_keeps_the_first_of_its_images_and_all_are_raw_images_of_their_class():
    run = tiny_run("rpc")
    run._learn(run.scenario.tasks[0])
    before = {k: v.clone() for k, v in run.method.exemplars.everything().items()}
    run._learn(run.scenario.tasks[1])
    after = run.method.exemplars.everything()
    for label in (0, 1):
        assert torch.equal(after["x"][after["y"] == label], before["x"][before["y"] == label][:10])
    train = run.scenario.dataset.train
    for image, label in zip(after["x"], after["y"], strict=True):
        same = (train.x[train.y == label] == image).flatten(1).all(1)
        assert same.any()


def test_stream_and_replayed_images_share_one_cross_entropy_over_all_classes():
    run = tiny_run("rpc")
    run._learn(run.scenario.tasks[0])
    method = run.method.__class__(Config(), run.method.ctx)
    method.load_state_dict(run.method.state_dict())
    batch = next(iter(run._batches(run.scenario.tasks[1])))
    rng = method.ctx.random("replay")
    state = rng.get_state()
    method.net.train()
    loss = method.loss(batch)["cross_entropy"]
    rng.set_state(state)
    old = method.exemplars.sample(16, rng)
    x = method.ctx.normalize(torch.cat([batch.x, old["x"]]))
    z = method.head[0](method.backbone(x))
    logits = torch.stack([(z * corner).sum(1) for corner in regular_simplex(10).T], dim=1)
    wanted = [
        -F.log_softmax(row, dim=0)[label]
        for row, label in zip(logits, [*batch.y, *old["y"]], strict=True)
    ]
    torch.testing.assert_close(loss, sum(wanted) / 48)


def test_a_memory_without_room_for_every_class_and_tasks_that_share_classes_are_refused():
    spec = tiny_trial("rpc", buffer_size=9).spec
    with pytest.raises(UserError, match="buffer_size must hold an image of each of the 10 classes"):
        protocol.check_method(spec, where="suite")
    with pytest.raises(ValueError, match="classes of their own"):
        RPC.check(Config(), SimpleNamespace(num_classes=10, task_classes=(10, 10)))

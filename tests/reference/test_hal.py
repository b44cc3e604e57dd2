"""HAL's ring, its anchors and the gradient they add, against plain re-computations."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import difference, tiny_run, trained, view
from torch.nn import functional as F

from methods.base import Planned, Training
from methods.learners import build_optimizer
from methods.parts.anchors import Anchors, anchor_loss
from methods.parts.ring_buffer import RingBuffer
from methods.supervised.hal import HAL, Config

CPU = torch.device("cpu")
INNER_LR = 0.3


def numbered(first, count):
    """Images whose pixels say which they are, with labels that say it too."""
    y = torch.arange(first, first + count)
    return {"x": y.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).clone(), "y": y}


def held(ring):
    x, y = ring.everything()
    assert torch.equal(x[:, 0, 0, 0].long(), y)
    return y.tolist()


def test_every_task_fills_a_ring_of_its_own():
    ring = RingBuffer(10, 3, CPU)
    ring.begin_task()
    ring.add(**numbered(0, 2))
    assert held(ring) == [0, 1]
    ring.add(**numbered(2, 2))
    assert held(ring) == [3, 1, 2]
    ring.begin_task()
    ring.add(**numbered(10, 4))
    assert held(ring) == [3, 1, 2, 13, 11, 12]
    ring.begin_task()
    for first in (20, 22, 24):
        ring.add(**numbered(first, 2))
    assert held(ring) == [3, 1, 2, 13, 11, 12, 23, 24, 25]
    assert len(ring) == 9


def test_a_batch_may_be_many_times_as_large_as_a_ring():
    at_once, one_by_one = RingBuffer(8, 2, CPU), RingBuffer(8, 2, CPU)
    for ring in (at_once, one_by_one):
        ring.begin_task()
        ring.add(**numbered(50, 3))
    at_once.add(**numbered(0, 21))
    for number in range(21):
        one_by_one.add(**numbered(number, 1))
    assert held(at_once) == held(one_by_one)
    assert sorted(held(at_once)) == [17, 18, 19, 20]


def test_a_task_with_fewer_images_than_places_leaves_no_empty_row_to_draw():
    ring = RingBuffer(12, 3, CPU)
    ring.begin_task()
    ring.add(**numbered(1, 2))
    ring.begin_task()
    ring.add(**numbered(11, 6))
    assert len(ring) == 6
    rng = torch.Generator().manual_seed(0)
    drawn = torch.cat([ring.sample(2, rng)[1] for _ in range(3000)])
    counts = torch.bincount(drawn, minlength=17)
    assert counts[[1, 2, 13, 14, 15, 16]].sum() == 6000
    assert counts[[1, 2, 13, 14, 15, 16]].min() > 900


def test_bytes_are_those_of_the_rows_filled():
    ring = RingBuffer(12, 3, CPU)
    assert ring.nbytes == 0
    ring.begin_task()
    ring.add(**numbered(0, 3))
    assert ring.nbytes == 3 * (4 + 8)


def test_a_ring_goes_on_from_its_state():
    first, second = RingBuffer(12, 3, CPU), RingBuffer(12, 3, CPU)
    first.begin_task()
    first.add(**numbered(0, 3))
    first.begin_task()
    first.add(**numbered(10, 6))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for ring in (first, second):
        ring.add(**numbered(20, 1))
        ring.begin_task()
        ring.add(**numbered(30, 2))
    assert held(first) == held(second)
    assert held(first)[:3] == [0, 1, 2]


def test_the_anchor_loss_of_a_case_made_by_hand():
    zero, three = math.log(2), math.log1p(math.exp(-3))
    loss = anchor_loss(
        features=torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        logits=torch.tensor([[0.0, 0.0], [3.0, 0.0]]),
        tuned=torch.tensor([[0.0, 3.0], [0.0, 0.0]]),
        y=torch.tensor([1, 0]),
        mean=torch.tensor([0.0, 4.0]),
        gamma=0.5,
    )
    # CE before - CE after + gamma * squared distance, with distances 1 + 4 and 0 + 16.
    expected = [zero - three + 0.5 * 5, three - zero + 0.5 * 16]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_the_mean_feature_starts_at_zero_and_follows_the_batches():
    anchors = Anchors((1, 2, 2), CPU)
    batches = [torch.randn(5, 3, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    expected = torch.zeros(3)
    for features in batches:
        anchors.follow(features, 0.3)
        expected = 0.3 * expected + 0.7 * features.mean(0)
    torch.testing.assert_close(anchors.mean, expected)
    anchors.append(torch.zeros(2, 1, 2, 2))
    assert anchors.mean is None
    assert anchors.nbytes == 2 * 4 * 4


def in_the_second_task(**changes):
    """A method in its second task, and the batches to come."""
    run = tiny_run("hal", **changes)
    run._learn(run.scenario.tasks[0])
    run.random.start_task(1)
    run.method.begin_task(view(run, 1))
    stream = list(run._batches(run.scenario.tasks[1]))
    for batch in stream[:2]:
        run.method.observe(batch)
    return run, stream[2:]


def at_the_end_of_a_task(**settings):
    """A method about to make its first anchors, and its state, to do so several times."""
    run = tiny_run("hal")
    method = run.method
    method.config = replace(method.config, inner_lr=INNER_LR, **settings)
    run.random.start_task(0)
    method.begin_task(view(run, 0))
    for batch in run._batches(run.scenario.tasks[0]):
        method.observe(batch)
    return run, copy.deepcopy(method.state_dict())


def plainly_tuned(method):
    """A copy of the network after one step on a batch of the memory, in eval mode."""
    x, y = method.buffer.sample(16, method.ctx.random("replay"))
    net = copy.deepcopy(method.net).eval()
    net.zero_grad()
    F.cross_entropy(net(method.views(x)), y).backward()
    torch.optim.SGD(net.parameters(), lr=INNER_LR).step()
    return net


def objective(net, tuned, anchor, label, method):
    """What an anchor (C, H, W) minimises, term by term."""
    y = torch.tensor([label])
    features = net[0](anchor[None])
    distance = ((features[0] - method.anchors.mean) ** 2).sum()
    rise = F.cross_entropy(tuned(anchor[None]), y) - F.cross_entropy(net(anchor[None]), y)
    return -rise + method.config.mean_weight * distance


def test_anchors_are_those_of_a_plain_loop_over_the_classes():
    run, state = at_the_end_of_a_task(anchor_steps=7, mean_weight=0.2)
    method = run.method
    method.end_task(view(run, 0))
    made = method.anchors.images
    method.load_state_dict(state)
    tuned, net = plainly_tuned(method), copy.deepcopy(method.net).eval()
    noise = torch.rand((2, 1, 8, 8), generator=method.ctx.random("anchors"))
    assert made.shape == noise.shape
    for row, label in enumerate(view(run, 0).classes):
        anchor = noise[row].clone().requires_grad_()
        optimizer = torch.optim.SGD([anchor], lr=INNER_LR)
        for _ in range(7):
            optimizer.zero_grad()
            objective(net, tuned, anchor, label, method).backward()
            optimizer.step()
        torch.testing.assert_close(made[row], anchor.detach())


def test_a_hundred_steps_lower_what_every_anchor_minimises():
    run, state = at_the_end_of_a_task()
    method, found = run.method, {}
    for steps in (0, 100):
        method.load_state_dict(state)
        method.config = replace(method.config, anchor_steps=steps)
        method.end_task(view(run, 0))
        found[steps] = method.anchors.images
    method.load_state_dict(state)
    tuned, net = plainly_tuned(method), copy.deepcopy(method.net).eval()
    assert not found[0].requires_grad
    assert (found[0] >= 0).all()
    assert (found[0] <= 1).all()
    with torch.no_grad():
        for row, label in enumerate(view(run, 0).classes):
            before, after = (objective(net, tuned, f[row], label, method) for f in found.values())
            assert after < before


def test_making_anchors_leaves_the_network_alone():
    run, state = at_the_end_of_a_task()
    run.method.end_task(view(run, 0))
    after = run.method.state_dict()
    assert difference(after["net"], state["net"]) is None
    assert difference(after["optimizer"], state["optimizer"]) is None
    assert run.method.net.training


def test_there_is_an_anchor_of_every_class_of_the_tasks_learned():
    run = tiny_run("hal")
    for position in range(2):
        before = run.method.anchors.images
        run._learn(run.scenario.tasks[position])
        assert len(run.method.anchors) == 2 * (position + 1)
        assert torch.equal(run.method.anchors.images[: len(before)], before)
    assert len(trained("hal").run.method.anchors) == 10


def test_the_anchors_add_the_gradient_of_a_plain_computation_with_two_networks():
    run, stream = in_the_second_task()
    method = run.method
    parameters = [*method.net.parameters()]
    loss = method.loss(stream[0])["cross_entropy"]
    method.optimizer.zero_grad()
    loss.backward()
    plain = [p.grad.clone() for p in parameters]

    here, ahead = copy.deepcopy(method.net).eval(), copy.deepcopy(method.net).eval()
    with torch.no_grad():
        for p, g in zip(ahead.parameters(), plain, strict=True):
            p -= 0.05 * g
        targets = ahead(method.anchors.images)
    here.zero_grad()
    difference_of_outputs = here(method.anchors.images) - targets
    (method.config.anchor_weight * (difference_of_outputs**2).mean()).backward()

    statistics = {k: v.clone() for k, v in method.net.named_buffers()}
    weights = [p.detach().clone() for p in parameters]
    method.adjust_gradients()
    for p, g, q in zip(parameters, plain, here.parameters(), strict=True):
        assert q.grad.abs().max() > 0
        torch.testing.assert_close(p.grad, g + q.grad, rtol=1e-4, atol=1e-7)
    assert difference(dict(method.net.named_buffers()), statistics) is None
    assert all(torch.equal(p, w) for p, w in zip(parameters, weights, strict=True))
    assert method.net.training


def test_without_anchors_the_gradient_is_that_of_the_cross_entropy():
    run = tiny_run("hal")
    run.random.start_task(0)
    run.method.begin_task(view(run, 0))
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    run.method.loss(batch)["cross_entropy"].backward()
    before = [p.grad.clone() for p in run.method.net.parameters()]
    run.method.adjust_gradients()
    after = [p.grad for p in run.method.net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("tried_step", ["plain", "optimizer"])
def test_the_step_that_is_tried_leaves_adam_alone(tried_step):
    run, stream = in_the_second_task(optimizer="adam", lr=1e-3)
    method = run.method
    method.config = replace(method.config, tried_step=tried_step)
    assert len(method.anchors)
    reference = copy.deepcopy(method.net)
    optimizer = build_optimizer(reference.parameters(), method.ctx.training)
    optimizer.load_state_dict(copy.deepcopy(method.optimizer.state_dict()))
    method.observe(stream[0])
    for ours, theirs in zip(method.net.parameters(), reference.parameters(), strict=True):
        theirs.grad = ours.grad.clone()
    optimizer.step()
    for ours, theirs in zip(method.net.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert difference(method.optimizer.state_dict(), optimizer.state_dict()) is None


@pytest.mark.parametrize("first", [True, False])
def test_the_step_that_is_tried_is_that_of_the_optimizer(first):
    run, stream = in_the_second_task(optimizer="adam", lr=1e-3, weight_decay=0.01)
    method = run.method
    method.config = replace(method.config, tried_step="optimizer")
    if not first:  # Adam has averages to begin with
        method.observe(stream[1])
    method.optimizer.zero_grad()
    method.loss(stream[0])["cross_entropy"].backward()
    reference = copy.deepcopy(method.net)
    optimizer = build_optimizer(reference.parameters(), method.ctx.training)
    optimizer.load_state_dict(copy.deepcopy(method.optimizer.state_dict()))
    before = copy.deepcopy(method.state_dict())
    for ours, theirs in zip(method.net.parameters(), reference.parameters(), strict=True):
        theirs.grad = ours.grad.clone()
    optimizer.step()
    tried = method._tried()
    for name, wanted in reference.named_parameters():
        assert torch.equal(tried[name], wanted)
    assert difference(method.state_dict(), before) is None


@pytest.mark.parametrize(("size", "fits"), [(4, False), (5, True)])
def test_a_buffer_without_an_image_for_every_task_is_refused(size, fits):
    planned = Planned(
        training=Training(buffer_size=size),
        objective=None,
        backbone=None,
        normalises_vectors=False,
        image_shape=(1, 8, 8),
        num_classes=10,
        task_classes=(2,) * 5,
    )
    if fits:
        HAL.check(Config(), planned)
        return
    with pytest.raises(ValueError, match="buffer_size must hold an image of each of the 5 tasks"):
        HAL.check(Config(), planned)

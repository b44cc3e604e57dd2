"""LwF and LwF-MC: their losses by hand, the warm-up of the head, what the teacher is."""

import copy
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from tiny import difference, tiny_run, view
from torch.nn import functional as F

from methods.parts.distillation import (
    RecordedLogits,
    sharpened_distillation,
    sigmoid_distillation,
)
from methods.supervised import lwf, lwf_mc

SECOND = [2, 3]  # the labels of the second task
OTHERS = [0, 1, 4, 5, 6, 7, 8, 9]


def built(name, **settings):
    """A trial whose method, with these settings, has made some steps on the first task."""
    run = tiny_run(name)
    module = {"lwf": lwf, "lwf_mc": lwf_mc}[name]
    run.method = module.build(module.Config(**settings), run.method.ctx)
    run.method.begin_task(view(run, 0))
    for batch in stream(run, 0, 3):
        run.method.observe(batch)
    return run


def stream(run, task, count):
    """The first batches of a task."""
    return list(itertools.islice(run._batches(run.scenario.tasks[task]), count))


def loss_and_views(method, batch):
    """What `loss` says of a batch, and the views that it saw."""
    rng = method.ctx.random("augment")
    state = rng.get_state()
    method.net.train()
    terms = method.loss(batch)
    rng.set_state(state)
    return terms, method.views(batch.x)


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def frozen_copy(net):
    return copy.deepcopy(net).eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sharpened(row, temperature):
    """A softmax, raised and normalised again, number by number."""
    weights = [math.exp(value) for value in row]
    powers = [(w / sum(weights)) ** (1 / temperature) for w in weights]
    return [power / sum(powers) for power in powers]


def naive_sharpened_distillation(logits, teacher_logits, temperature):
    total = 0.0
    for new, old in zip(logits.tolist(), teacher_logits.tolist(), strict=True):
        q, p = sharpened(old, temperature), sharpened(new, temperature)
        total -= sum(a * math.log(b) for a, b in zip(q, p, strict=True))
    return total / len(logits)


def naive_bce(logits, targets):
    """Mean binary cross-entropy, number by number."""
    total = 0.0
    for value, target in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-value))
        total -= target * math.log(p) + (1 - target) * math.log(1 - p)
    return total / logits.numel()


# The losses


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_sharpened_distillation_is_that_of_the_powers_of_probabilities(temperature):
    logits, old = normal(5, 4, seed=1), normal(5, 4, seed=2)
    found = sharpened_distillation(logits, old, temperature)
    expected = naive_sharpened_distillation(logits, old, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_sharpened_distillation_stands_still_where_the_teacher_is_met():
    logits = normal(5, 4).requires_grad_()
    sharpened_distillation(logits, logits.detach() + 3, 2.0).backward()
    assert logits.grad.abs().max() < 1e-6


def test_sharpened_distillation_is_finite_for_logits_far_apart():
    logits = torch.tensor([[0.0, 1000.0]], requires_grad=True)
    loss = sharpened_distillation(logits, torch.tensor([[1000.0, 0.0]]), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(500)
    assert logits.grad.isfinite().all()


def test_sigmoid_targets_are_the_teacher_s_for_past_classes_and_labels_for_the_others():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0], [0.5, -2.0, 3.0, 0.0]])
    teacher = torch.tensor([[0.0, math.log(3), 9.0, 9.0, 9.0], [-math.log(3), 0.0, 9.0, 9.0, 9.0]])
    targets = torch.tensor([[0.5, 0.75, 0.0, 1.0], [0.25, 0.5, 1.0, 0.0]])
    found = sigmoid_distillation(logits, torch.tensor([3, 2]), teacher, 2)
    assert found.item() == pytest.approx(naive_bce(logits, targets), rel=1e-5)


@pytest.mark.parametrize("teacher", [None, torch.full((2, 3), 5.0)])
def test_without_teacher_or_past_classes_all_sigmoid_targets_are_labels(teacher):
    logits = normal(2, 3)
    targets = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = sigmoid_distillation(logits, torch.tensor([2, 0]), teacher, 0)
    assert found.item() == pytest.approx(naive_bce(logits, targets), rel=1e-5)


def test_sigmoid_distillation_leaves_past_outputs_that_meet_the_teacher():
    logits = normal(6, 5).requires_grad_()
    sigmoid_distillation(logits, torch.tensor([3, 4, 3, 4, 3, 4]), logits.detach(), 3).backward()
    assert logits.grad[:, :3].abs().max() < 1e-7
    assert logits.grad[:, 3:].abs().min() > 1e-4


# LwF


def test_lwf_adds_the_weighted_distillation_over_past_outputs_to_cross_entropy_over_seen_ones():
    run = built("lwf", alpha=0.7, temperature=3.0)
    run.method.begin_task(view(run, 1))
    teacher = frozen_copy(run.method.net)
    for batch in stream(run, 1, 4)[:3]:
        run.method.observe(batch)
    batch = stream(run, 1, 4)[3]
    terms, views = loss_and_views(run.method, batch)
    logits, old = run.method.net(views), teacher(views)
    expected = 0.7 * naive_sharpened_distillation(logits[:, :2], old[:, :2], 3.0)
    assert terms.keys() == {"stream", "distillation"}
    assert terms["distillation"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(terms["stream"], F.cross_entropy(logits[:, :4], batch.y))


def test_lwf_distils_nothing_in_the_first_task():
    run = built("lwf")
    batch = stream(run, 0, 1)[0]
    terms, views = loss_and_views(run.method, batch)
    assert terms.keys() == {"stream"}
    logits = run.method.net(views)[:, :2]
    torch.testing.assert_close(terms["stream"], F.cross_entropy(logits, batch.y))
    assert run.method.memory() == {"teachers": 0}


def own_loss(method, data):
    """Cross-entropy among the outputs of the second task."""
    return F.cross_entropy(method.predict(data.x)[:, SECOND], data.y - 2).item()


def test_the_warm_up_trains_the_outputs_of_the_new_classes_and_nothing_else():
    run = built("lwf", warmup_epochs=3)
    method, task = run.method, view(run, 1)
    before, loss = states(method.net), own_loss(method, task.data)
    optimizer = copy.deepcopy(method.optimizer.state_dict())
    head = method.head.weight.detach().clone(), method.head.bias.detach().clone()
    method.begin_task(task)
    changed = {name for name, value in states(method.net).items() if (value != before[name]).any()}
    assert changed == {"1.weight", "1.bias"}  # not the running statistics either
    for now, then in zip((method.head.weight, method.head.bias), head, strict=True):
        assert torch.equal(now[OTHERS], then[OTHERS])
        assert (now[SECOND] != then[SECOND]).any()
    assert own_loss(method, task.data) < loss
    assert difference(method.optimizer.state_dict(), optimizer) is None


def test_the_warm_up_is_plain_gradient_descent_on_fixed_features():
    ours, theirs = built("lwf", warmup_lr=0.3), built("lwf")
    ours.method.begin_task(view(ours, 1))
    method = theirs.method
    order, rng = method.ctx.random("warm-up order"), method.ctx.random("warm-up augment")
    weight, bias = method.head.weight.detach()[2:4], method.head.bias.detach()[2:4]
    method.backbone.eval()
    for batch in view(theirs, 1).batches(32, epochs=1, rng=order):
        features = method.backbone(method.ctx.augment(batch.x, rng)).detach()
        error = (features @ weight.T + bias).softmax(1) - F.one_hot(batch.y - 2, 2)
        weight = weight - 0.3 * error.T @ features / len(error)
        bias = bias - 0.3 * error.mean(0)
    torch.testing.assert_close(ours.method.head.weight[2:4].detach(), weight)
    torch.testing.assert_close(ours.method.head.bias[2:4].detach(), bias)


@pytest.mark.parametrize(("warmup_epochs", "epochs"), [(None, 1), (0, 0), (2, 2)])
def test_images_of_the_warm_up_are_counted(warmup_epochs, epochs):
    run = built("lwf", warmup_epochs=warmup_epochs)
    task = view(run, 1)
    run.method.begin_task(task)
    assert task.tally.samples == epochs * len(task.data.x)


def test_the_warm_up_does_not_change_the_views_of_the_task():
    warm, cold = built("lwf", warmup_epochs=2), built("lwf", warmup_epochs=0)
    for run in (warm, cold):
        run.method.begin_task(view(run, 1))
    x = view(warm, 1).data.x[:5]
    assert torch.equal(warm.method.views(x), cold.method.views(x))


def test_the_teacher_is_the_network_after_the_warm_up_and_stays():
    run = built("lwf")
    run.method.begin_task(view(run, 1))
    warmed = frozen_copy(run.method.net)
    for batch in stream(run, 1, 3):
        run.method.observe(batch)
    views = run.method.ctx.normalize(view(run, 1).data.x[:9])
    assert torch.equal(run.method.teacher(views), warmed(views))
    assert (run.method.net.eval()(views) != warmed(views)).any()


def test_stored_logits_are_those_of_the_plain_image_when_the_task_began():
    run = built("lwf", alpha=0.7, stored_logits=True)
    method = run.method
    method.begin_task(view(run, 1))
    warmed = frozen_copy(method.net)
    for batch in stream(run, 1, 4)[:3]:
        method.observe(batch)
    batch = stream(run, 1, 4)[3]
    terms, views = loss_and_views(method, batch)
    old = warmed(method.ctx.normalize(batch.x))[:, :2]
    expected = 0.7 * naive_sharpened_distillation(method.net(views)[:, :2], old, 2.0)
    assert terms["distillation"].item() == pytest.approx(expected, rel=1e-4)
    count = len(view(run, 1).data.x)
    assert method.memory() == {"teachers": count * (8 + 2 * 4)}  # a row number, two logits


def test_stored_logits_come_back_in_the_middle_of_a_task():
    first, second = built("lwf", stored_logits=True), built("lwf", stored_logits=True)
    first.method.begin_task(view(first, 1))
    second.method.load_state_dict(copy.deepcopy(first.method.state_dict()))
    for batch in stream(first, 1, 2):
        ours, theirs = first.method.observe(batch), second.method.observe(batch)
        assert difference(ours, theirs) is None
        assert "distillation" in ours


def test_recorded_logits_are_found_by_row_number():
    recorded = RecordedLogits(torch.device("cpu"))
    recorded.record(torch.tensor([7, 3, 12]), torch.tensor([[0.7], [0.3], [1.2]]))
    found = recorded(torch.tensor([12, 3, 3, 7]))
    torch.testing.assert_close(found, torch.tensor([[1.2], [0.3], [0.3], [0.7]]))


# LwF-MC


def test_lwf_mc_follows_the_network_as_it_was_before_the_task():
    run = built("lwf_mc")
    teacher = frozen_copy(run.method.net)
    run.method.begin_task(view(run, 1))
    batches = stream(run, 1, 4)
    for batch in batches[:3]:
        run.method.observe(batch)
    terms, views = loss_and_views(run.method, batches[3])
    old = teacher(views).sigmoid()
    targets = torch.zeros(len(views), 4)
    for i, label in enumerate(batches[3].y.tolist()):
        targets[i, label] = 1
        targets[i, :2] = old[i, :2]
    assert terms.keys() == {"stream"}
    expected = naive_bce(run.method.net(views)[:, :4], targets)
    assert terms["stream"].item() == pytest.approx(expected, rel=1e-4)


def test_lwf_mc_trains_no_output_of_a_future_class():
    run = built("lwf_mc")
    before = run.method.head.weight.detach().clone()
    run.method.begin_task(view(run, 1))
    for batch in stream(run, 1, 3):
        run.method.observe(batch)
    now = run.method.head.weight.detach()
    assert torch.equal(now[4:], before[4:])
    assert (now[:4] != before[:4]).any(1).all()


def test_lwf_mc_takes_all_targets_from_labels_in_the_first_task():
    run = built("lwf_mc")
    batch = stream(run, 0, 1)[0]
    terms, views = loss_and_views(run.method, batch)
    targets = torch.eye(2)[batch.y]
    expected = naive_bce(run.method.net(views)[:, :2], targets)
    assert terms["stream"].item() == pytest.approx(expected, rel=1e-4)
    assert run.method.memory() == {"teachers": 0}


def test_lwf_mc_can_keep_all_parameters_small():
    run = built("lwf_mc", wd_reg=0.1)
    terms, _ = loss_and_views(run.method, stream(run, 0, 1)[0])
    expected = 0.1 * sum((p**2).sum().item() for p in run.method.net.parameters())
    assert terms["decay"].item() == pytest.approx(expected, rel=1e-4)


# Both


@pytest.mark.parametrize("name", ["lwf", "lwf_mc"])
def test_tasks_that_share_their_classes_have_nothing_to_distil(name):
    run = built(name)
    before = states(run.method.net)
    run.method.begin_task(SimpleNamespace(position=1, classes=range(10)))
    assert difference(states(run.method.net), before) is None
    assert run.method.observe(stream(run, 1, 1)[0]).keys() == {"stream"}
    assert run.method.memory() == {"teachers": 0}


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": -1.0}, {"temperature": 0.0}, {"warmup_epochs": -1}, {"warmup_lr": -0.1}],
)
def test_lwf_refuses_settings_out_of_range_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        lwf.Config(**wrong)


def test_lwf_mc_refuses_a_negative_decay():
    with pytest.raises(ValueError, match="wd_reg"):
        lwf_mc.Config(wd_reg=-0.1)

"""PEC: stacked networks, an Adam for each, and that no student is touched by another's images."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import difference, tiny_run, view
from torch import nn

from methods.base import Batch
from methods.parts.prediction_errors import (
    RandomTeacher,
    Regressors,
    Shape,
    class_losses,
    prediction_errors,
)
from methods.parts.row_adam import RowAdam
from methods.supervised.pec import PEC, Config


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def random_regressors(count, width, shape, rng):
    """Networks that all differ."""
    net = Regressors(count, width, shape)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    return net


def single(net, which):
    """One of the networks, of PyTorch's layers."""
    (channels, _, _), width = net.shape.image, net.offsets.shape[1]
    layers = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding="same"),
        nn.InstanceNorm2d(width, affine=True),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(net.shape.resolution),
        nn.Flatten(),
        nn.Linear(width * net.shape.resolution**2, net.shape.outputs),
    )
    values = (net.filters, net.offsets, net.gain, net.shift, net.weight, net.bias)
    for parameter, value in zip(layers.parameters(), values, strict=True):
        parameter.data = value[which].detach().reshape(parameter.shape).clone()
    return layers


def method(**changes):
    """PEC on digits, with settings of its own changed."""
    run = tiny_run("pec")
    small = {"width": 4, "teacher_width": 10, "resolution": 2, "outputs": 16, "student_lr": 1e-2}
    return PEC(Config(**small | changes), run.method.ctx), run


def begin(learner, position, classes):
    learner.begin_task(SimpleNamespace(position=position, classes=classes))


def batches_of(run, labels, count=6, size=12):
    """Batches with images of these labels alone."""
    train = run.scenario.dataset.train
    rows = torch.cat([(train.y == label).nonzero()[:40, 0] for label in labels])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3))
    parts = rows[order].split(size)[:count]
    return [Batch(train.x[some], train.y[some], some) for some in parts]


@pytest.mark.parametrize(
    ("image", "resolution"), [((3, 8, 8), 2), ((1, 8, 8), 3), ((2, 7, 5), 3), ((1, 4, 4), 4)]
)
def test_stacked_networks_compute_what_each_would_alone(image, resolution, rng):
    net = random_regressors(4, 5, Shape(image, resolution, 6), rng)
    x, y = torch.randn(7, *image, generator=rng), torch.tensor([1, 2, 3, 1, 1, 3, 2])
    alone = torch.stack([single(net, i)(x) for i in range(4)])
    torch.testing.assert_close(net(x), alone, rtol=1e-4, atol=1e-4)
    own = net.of_own(x, y, range(1, 4))
    torch.testing.assert_close(own, alone[y, torch.arange(7)], rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_each_network_alone_and_zero_without_images(rng):
    net = random_regressors(3, 4, Shape((1, 8, 8), 3, 6), rng).double()
    x, y = torch.randn(5, 1, 8, 8, generator=rng).double(), torch.tensor([2, 1, 2, 2, 1])
    net.of_own(x, y, range(3)).square().sum().backward()
    for which in range(3):
        layers = single(net, which)
        if (y == which).any():
            layers(x[y == which]).square().sum().backward()
        stacked = (net.filters, net.offsets, net.gain, net.shift, net.weight, net.bias)
        for parameter, mine in zip(layers.parameters(), stacked, strict=True):
            if parameter.grad is None:
                assert not mine.grad[which].any()
                continue
            wanted = parameter.grad.view_as(mine[which])
            torch.testing.assert_close(mine.grad[which], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "width", "shape", "students", "teacher"),
    [
        (10, 60, Shape((3, 32, 32), 5, 743), 10 * 1_117_043, 111_630_743),
        (100, 40, Shape((3, 32, 32), 4, 172), 100 * 111_452, 11_128_172),
    ],
)
def test_the_paper_s_networks_have_as_many_parameters_as_it_says(
    classes, width, shape, students, teacher
):
    with torch.device("meta"):
        own = sum(p.numel() for p in Regressors(classes, width, shape).parameters())
        random = sum(p.numel() for p in Regressors(1, 100 * width, shape).parameters())
    assert (own, random) == (students, teacher)


def test_all_students_begin_with_the_same_weights_and_the_teacher_stays_as_it_is():
    learner, run = method()
    for parameter in learner.students.parameters():
        assert torch.equal(parameter, parameter[:1].expand_as(parameter))
    teacher = copy.deepcopy(learner.teacher.state_dict())
    begin(learner, 0, range(2))
    for batch in batches_of(run, [0, 1]):
        learner.observe(batch)
    assert difference(learner.teacher.state_dict(), teacher) is None
    assert learner.memory() == {"teachers": sum(v.nbytes for v in teacher.values())}


def test_micro_batches_of_the_teacher_change_nothing(rng):
    net = random_regressors(1, 6, Shape((1, 8, 8), 2, 5), rng)
    x = torch.randn(7, 1, 8, 8, generator=rng)
    torch.testing.assert_close(RandomTeacher(net, 2)(x), RandomTeacher(net, 7)(x))


def test_the_loss_of_a_class_is_the_mean_of_its_images_errors(rng):
    outputs, targets = torch.randn(2, 6, 3, generator=rng)
    y = torch.tensor([4, 6, 4, 4, 6, 4])
    losses, present = class_losses(prediction_errors(outputs, targets), y, range(4, 7))
    for label, loss in zip((4, 5, 6), losses, strict=True):
        errors = [
            sum((float(outputs[i, j]) - float(targets[i, j])) ** 2 for j in range(3)) / 3
            for i in range(6)
            if y[i] == label
        ]
        assert float(loss) == pytest.approx(sum(errors) / len(errors) if errors else 0.0)
    assert present.tolist() == [True, False, True]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 4)])
def test_a_row_is_optimised_as_by_an_adam_of_its_own(shape, rng):
    stacked = nn.Parameter(torch.randn(shape, generator=rng))
    alone = [nn.Parameter(row.detach().clone()) for row in stacked]
    ours = RowAdam([stacked], lr=0.1)
    theirs = [torch.optim.Adam([row], lr=0.1) for row in alone]
    for _ in range(12):
        stacked.grad = torch.randn(shape, generator=rng)
        chosen = torch.rand(3, generator=rng) < 0.5
        for i, row in enumerate(alone):
            if i in (1, 2, 3) and chosen[i - 1]:
                row.grad = stacked.grad[i].clone()
                theirs[i].step()
        ours.choose(range(1, 4), chosen)
        ours.step()
        torch.testing.assert_close(stacked.detach(), torch.stack(alone).detach())
    untouched = torch.stack([alone[0], alone[4]])
    assert torch.equal(stacked[[0, 4]], untouched)


def test_the_native_learning_rate_falls_to_nothing_in_each_row_s_own_time():
    row = nn.Parameter(torch.zeros(3, 1))
    optimizer = RowAdam([row], lr=0.1)
    optimizer.decay_over(torch.tensor([4, 2, 0]))
    moved = []
    for _ in range(4):
        before = row.detach().clone()
        row.grad = torch.ones(3, 1)  # Adam's step for a constant gradient is the learning rate
        optimizer.choose(range(3), torch.tensor([True, True, False]))
        optimizer.step()
        moved.append((before - row.detach())[:, 0])
    wanted = torch.tensor([[0.1, 0.1, 0], [0.075, 0.05, 0], [0.05, 0, 0], [0.025, 0, 0]])
    torch.testing.assert_close(torch.stack(moved), wanted, rtol=1e-4, atol=1e-6)


def test_a_step_without_a_choice_of_rows_is_an_error():
    with pytest.raises(RuntimeError, match="no rows were chosen"):
        RowAdam([nn.Parameter(torch.zeros(2, 1))], lr=0.1).step()


def test_a_student_without_an_image_in_the_batch_stays_bit_for_bit():
    learner, run = method()
    begin(learner, 0, range(3))
    for batch in batches_of(run, [0, 1, 2]):
        learner.observe(batch)
    before = copy.deepcopy(learner.state_dict())
    for batch in batches_of(run, [1]):
        learner.observe(batch)
    others = [i for i in range(10) if i != 1]
    for name, value in learner.students.state_dict().items():
        assert torch.equal(value[others], before["net"][name][others])
        # Instance normalisation cancels the bias before it.
        assert name == "offsets" or not torch.equal(value[1], before["net"][name][1]), name
    for was, now in zip(
        before["optimizer"]["state"].values(),
        learner.optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(was[key][others], now[key][others]) for key in was)


def test_scores_are_the_negative_errors_of_every_student():
    learner, run = method()
    begin(learner, 0, range(3))
    for batch in batches_of(run, [0, 1, 2]):
        learner.observe(batch)
    x = run.scenario.dataset.test.x[:20]
    images = learner.ctx.normalize(x)
    with torch.no_grad():
        target = single(learner.teacher.net, 0)(images)
        errors = [
            (single(learner.students, c)(images) - target).square().mean(1) for c in range(10)
        ]
    torch.testing.assert_close(learner.predict(x), -torch.stack(errors, dim=1))
    torch.testing.assert_close(learner.embed(x), torch.stack(errors, dim=1))
    assert learner.embed(x)[:, 3:].unique(dim=1).shape[1] == 1  # untrained ones are all the same


def test_later_tasks_change_no_score_of_earlier_classes():
    run = tiny_run("pec")
    x = run.scenario.dataset.test.x[:50]
    run._learn(run.scenario.tasks[0])
    first = run.method.predict(x)[:, :2]
    for task in run.scenario.tasks[1:3]:
        run._learn(task)
    assert torch.equal(run.method.predict(x)[:, :2], first)


def test_the_order_of_tasks_does_not_matter():
    students = []
    for order in ([0, 1, 2], [2, 0, 1]):
        learner, run = method(augment=False)
        for position, task in enumerate(order):
            classes = range(2 * task, 2 * task + 2)
            begin(learner, position, classes)
            for batch in batches_of(run, classes):
                learner.observe(batch)
        students.append(learner.students.state_dict())
    assert difference(*students) is None


def test_the_company_of_other_classes_in_a_task_does_not_matter():
    together, run = method(augment=False)
    begin(together, 0, range(2))
    alone, _ = method(augment=False)
    for batch in batches_of(run, [0, 1]):
        together.observe(batch)
        for label in (0, 1):
            begin(alone, label, range(label, label + 1))
            own = batch.y == label
            alone.observe(Batch(batch.x[own], batch.y[own], batch.index[own]))
    x = run.scenario.dataset.test.x[:50]
    torch.testing.assert_close(together.predict(x), alone.predict(x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "mirrored"),
    [({}, True), ({"augment": False}, False), ({"pec_schedule": "native"}, False)],
)
def test_images_are_augmented_in_the_common_schedule_unless_it_says_otherwise(settings, mirrored):
    plain, run = method(augment=False)
    ctx = replace(plain.ctx, augment=lambda x, _: plain.ctx.normalize(x.flip(3)))
    learner = PEC(replace(plain.config, **{"augment": True, **settings}), ctx)
    for one in (plain, learner):
        begin(one, 0, range(2))
    (batch,) = batches_of(run, [0, 1], count=1)
    shown = replace(batch, x=batch.x.flip(3)) if mirrored else batch
    assert torch.equal(learner.observe(batch)["errors"], plain.observe(shown)["errors"])


def test_the_native_schedule_passes_over_each_image_once_whatever_the_protocol():
    learner, run = method(pec_schedule="native")
    run.method = learner
    task = run.scenario.tasks[1]
    learner.begin_task(view(run, 1))
    steps = list(learner.learn_task(view(run, 1), run._batches(task)))
    assert len(steps) == len(task.train)
    counts = run.scenario.dataset.train.y[task.train].bincount(minlength=10).float()
    for state in learner.optimizer.state.values():
        assert torch.equal(state["steps"], counts)
    assert all(math.isfinite(loss["errors"]) for loss in steps)


def test_more_cells_than_pixels_are_refused():
    planned = SimpleNamespace(image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="resolution is 9, but images have 8 pixels"):
        PEC.check(Config(resolution=9), planned)


def test_networks_without_channels_are_refused():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        Config(width=0)
    with pytest.raises(ValueError, match="student_lr must be positive"):
        Config(student_lr=0)

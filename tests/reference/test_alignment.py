"""Alignment heads, averaged networks and snapshots: values, gradients, timing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.seeds import Randomness
from methods.backbones import cnn
from methods.base import Context, Training
from methods.objectives.simclr import Config, SimCLR
from methods.parts.alignment import Alignment, negative_cosine
from methods.parts.bytes_held import module_nbytes
from methods.parts.teachers import Snapshot, Teacher


def network():
    backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8))
    return backbone, SimCLR(Config(projection_dim=16), backbone)


def context():
    return Context(
        backbone=pytest.fail,
        objective=pytest.fail,
        image_shape=(1, 8, 8),
        num_classes=2,
        num_tasks=1,
        augment=pytest.fail,
        normalize=pytest.fail,
        device=torch.device("cpu"),
        random=Randomness(0),
        training=Training(),
    )


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def states(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_negative_cosine_is_the_mean_over_rows():
    a, b = normal(5, 3, seed=1), normal(5, 3, seed=2)
    naive = -sum(x @ y / (x.norm() * y.norm()) for x, y in zip(a, b, strict=True)) / 5
    torch.testing.assert_close(negative_cosine(a, b), naive)
    assert negative_cosine(a, 3 * a).item() == pytest.approx(-1)


@pytest.mark.parametrize("criterion", ["cosine", "mse", "ssl"])
def test_alignment_is_the_mean_over_views_of_the_head_s_loss(criterion):
    _, objective = network()
    alignment = Alignment(context(), objective, criterion)
    z = [normal(6, 16, seed=1), normal(6, 16, seed=2)]
    targets = [normal(6, 16, seed=3), normal(6, 16, seed=4)]
    found = alignment(z, targets)
    head = alignment.head(torch.cat(z))
    if criterion == "ssl":
        wanted = objective.alignment(head.chunk(2), tuple(targets))
    else:
        compare = {"cosine": negative_cosine, "mse": F.mse_loss}[criterion]
        wanted = sum(compare(*pair) for pair in zip(head.chunk(2), targets, strict=True)) / 2
    torch.testing.assert_close(found, wanted)


def test_gradients_reach_projections_and_head_but_no_target():
    alignment = Alignment(context(), network()[1])
    z, target = normal(6, 16, seed=1).requires_grad_(), normal(6, 16, seed=2).requires_grad_()
    alignment([z], [target]).backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert target.grad is None
    assert all(p.grad is not None for p in alignment.parameters())


def test_the_head_has_the_shape_of_the_released_code():
    head = list(Alignment(context(), network()[1]).head)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert (head[0].in_features, head[0].out_features, head[0].bias) == (16, 512, None)
    assert (head[3].in_features, head[3].out_features) == (512, 16)


def test_two_methods_of_a_seed_start_from_the_same_head():
    first, second = (Alignment(context(), network()[1]) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_averaged_network_follows_parameters_exactly():
    backbone, objective = network()
    teacher = Teacher(backbone, objective, "batch")
    start = states(teacher)
    with torch.no_grad():
        for p in [*backbone.parameters(), *objective.parameters()]:
            p.add_(1)
    teacher.follow(backbone, objective, 0.9)
    teacher.follow(backbone, objective, 0.9)
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter, start[name] + (1 - 0.9**2))


@pytest.mark.parametrize("norm", ["batch", "copy"])
def test_running_statistics_are_copied_only_if_asked(norm):
    backbone, objective = network()
    teacher = Teacher(backbone, objective, norm)
    before = states(teacher)
    backbone(normal(4, 1, 8, 8))  # moves the network's running statistics
    teacher.follow(backbone, objective, 0.9)
    live = dict(backbone.named_buffers())
    for name, value in live.items():
        ours = teacher.state_dict()[f"net.0.{name}"]
        assert torch.equal(ours, value) == (norm == "copy")
        assert torch.equal(ours, before[f"net.0.{name}"]) == (norm == "batch")


def test_a_teacher_normalises_by_the_batch_of_all_its_views():
    backbone, objective = network()
    teacher = Teacher(backbone, objective, "batch")
    views = (normal(6, 1, 8, 8, seed=1), 3 + normal(6, 1, 8, 8, seed=2))
    together = copy.deepcopy(teacher.net)(torch.cat(views))
    for found, wanted in zip(teacher(views), together.chunk(2), strict=True):
        torch.testing.assert_close(found, wanted)
    apart = copy.deepcopy(teacher.net)(views[0])
    assert not torch.allclose(apart, together[:6], atol=1e-3)


def test_a_teacher_gives_no_gradient_and_takes_none():
    backbone, objective = network()
    teacher = Teacher(backbone, objective, "batch")
    x = normal(4, 1, 8, 8).requires_grad_()
    assert not any(z.requires_grad for z in teacher((x, x)))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_is_a_copy():
    backbone, objective = network()
    teacher = Teacher(backbone, objective, "batch")
    live = {p.data_ptr() for p in [*backbone.parameters(), *objective.parameters()]}
    assert not live & {p.data_ptr() for p in teacher.parameters()}
    assert teacher.nbytes == module_nbytes(backbone) + module_nbytes(objective.projector)


def test_a_frozen_snapshot_neither_moves_nor_updates_its_statistics():
    backbone, objective = network()
    snapshot = Snapshot(backbone, objective, "frozen")
    assert snapshot.teacher is None
    assert snapshot.nbytes == 0
    snapshot.take()
    before = states(snapshot.teacher)
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    snapshot.teacher((normal(4, 1, 8, 8),))
    for name, value in snapshot.teacher.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_snapshot_survives_a_round_trip_taken_or_not():
    backbone, objective = network()
    first, second = (Snapshot(backbone, objective, "frozen") for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert second.teacher is None
    first.take()
    with torch.no_grad():
        next(backbone.parameters()).add_(1)
    second.load_state_dict(first.state_dict())
    for name, value in first.teacher.state_dict().items():
        assert torch.equal(value, second.teacher.state_dict()[name])
    assert not second.teacher.net.training

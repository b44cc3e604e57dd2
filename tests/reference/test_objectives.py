"""SimCLR and the heads of all objectives, against versions written as the papers' formulas read."""

import math

import pytest
import torch
from torch import nn

from methods.backbones import cnn
from methods.objectives.simclr import Config, SimCLR, nt_xent
from methods.parts.heads import predictor, projector


def naive_nt_xent(z1, z2, temperature):
    """Equation 1 of Chen et al. (2020), sum by sum; views of an image are rows k and k + B."""
    z = torch.cat([z1, z2])
    batch, count = len(z1), 2 * len(z1)

    def similarity(i, j):
        return (z[i] @ z[j]) / (z[i].norm() * z[j].norm())

    losses = []
    for i in range(count):
        positive = i + batch if i < batch else i - batch
        others = sum(torch.exp(similarity(i, k) / temperature) for k in range(count) if k != i)
        losses.append(-torch.log(torch.exp(similarity(i, positive) / temperature) / others))
    return sum(losses) / count


def views(batch=5, dim=7, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, dim, generator=rng, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_nt_xent_is_the_double_loop_and_so_are_its_gradients(batch, temperature):
    z1, z2 = views(batch)
    fast, slow = nt_xent(z1, z2, temperature), naive_nt_xent(z1, z2, temperature)
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, (z1, z2)), torch.autograd.grad(slow, (z1, z2)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_nt_xent_of_equal_vectors_is_the_log_of_the_number_of_candidates():
    z = torch.ones(4, 3)
    assert nt_xent(z, z, 0.5).item() == pytest.approx(math.log(2 * 4 - 1))


def test_nt_xent_does_not_see_lengths():
    z1, z2 = views()
    torch.testing.assert_close(nt_xent(3 * z1, 0.1 * z2, 0.5), nt_xent(z1, z2, 0.5))


def test_nt_xent_is_symmetric_in_its_views():
    z1, z2 = views()
    torch.testing.assert_close(nt_xent(z1, z2, 0.5), nt_xent(z2, z1, 0.5))


def test_nt_xent_stays_finite_at_a_low_temperature():
    z1, z2 = views()
    assert nt_xent(z1.float(), z2.float(), 1e-3).isfinite()


def test_the_projector_has_three_layers_without_bias_and_a_plain_last_normalisation():
    layers = list(projector(32, 64))
    assert [type(layer) for layer in layers] == [
        *(nn.Linear, nn.BatchNorm1d, nn.ReLU) * 2,
        *(nn.Linear, nn.BatchNorm1d),
    ]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(a.in_features, a.out_features) for a in linear] == [(32, 32), (32, 32), (32, 64)]
    assert all(layer.bias is None for layer in linear)
    assert [n.affine for n in layers if isinstance(n, nn.BatchNorm1d)] == [True, True, False]


def test_a_projector_without_its_last_normalisation_is_the_same_up_to_there():
    whole, short = list(projector(8, 16)), list(projector(8, 16, last_norm=False))
    assert [type(layer) for layer in short] == [type(layer) for layer in whole[:-1]]
    assert short[-1].bias is None
    assert short[-1].out_features == 16


def test_the_predictor_is_a_bottleneck_of_two_layers():
    layers = list(predictor(16, hidden=4))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    first, norm, _, last = layers
    assert (first.in_features, first.out_features, first.bias) == (16, 4, None)
    assert norm.affine
    assert (last.in_features, last.out_features) == (4, 16)
    assert last.bias is not None
    assert predictor(2048)[0].out_features == 512


def test_simclr_normalises_each_view_by_its_own_statistics():
    backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8))
    objective = SimCLR(Config(projection_dim=16), backbone)
    rng = torch.Generator().manual_seed(0)
    first = torch.randn(6, 1, 8, 8, generator=rng)
    second = 5 + 3 * torch.randn(6, 1, 8, 8, generator=rng)
    together = objective(backbone, (first, second), rng)
    alone = [backbone(view) for view in (first, second)]
    for found, wanted in zip(together.features, alone, strict=True):
        torch.testing.assert_close(found, wanted)
    for found, features in zip(together.projections, alone, strict=True):
        torch.testing.assert_close(found, objective.projector(features))
        assert found.shape == (6, 16)
    torch.testing.assert_close(together.loss, nt_xent(*together.projections, 0.5))


def test_simclr_holds_its_projector_and_not_the_backbone():
    backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8))
    objective = SimCLR(Config(projection_dim=16), backbone)
    ours = {id(parameter) for parameter in objective.parameters()}
    assert not ours & {id(parameter) for parameter in backbone.parameters()}
    assert len(ours) == 7


def test_simclr_trains_backbone_and_projector():
    backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8))
    objective = SimCLR(Config(projection_dim=16), backbone)
    objective(
        backbone, (torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)), torch.Generator()
    ).loss.backward()
    for module in (backbone, objective):
        assert all(parameter.grad is not None for parameter in module.parameters())


def naive_alignment(predicted, target, temperature):
    """CaSSLe's contrastive distillation, sum by sum: row i of one and row i of the other match."""
    p, z = torch.cat(predicted), torch.cat(target)
    count = len(p)

    def kernel(i, j):
        return torch.exp((p[i] @ z[j]) / (p[i].norm() * z[j].norm()) / temperature)

    rows = [
        -torch.log(kernel(i, i) / sum(kernel(i, j) for j in range(count))) for i in range(count)
    ]
    columns = [
        -torch.log(kernel(j, j) / sum(kernel(i, j) for i in range(count))) for j in range(count)
    ]
    return (sum(rows) / count + sum(columns) / count) / 2


def simclr(**settings):
    backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8))
    return SimCLR(Config(projection_dim=16, **settings), backbone)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_simclrs_alignment_is_the_double_loop_and_so_are_its_gradients(batch, temperature):
    predicted, target = views(batch), [z.detach() for z in views(batch, seed=1)]
    fast = simclr(alignment_temperature=temperature).alignment(tuple(predicted), tuple(target))
    slow = naive_alignment(predicted, target, temperature)
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, predicted), torch.autograd.grad(slow, predicted), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_simclrs_alignment_has_its_own_temperature_by_default():
    predicted, target = tuple(views()), tuple(views(seed=1))
    found = simclr(temperature=0.7).alignment(predicted, target)
    torch.testing.assert_close(found, naive_alignment(predicted, target, 0.2))


def test_simclrs_alignment_tells_views_of_one_image_apart():
    """Nothing is masked: all 2B targets but its own are negatives of a prediction."""
    z = torch.ones(3, 4)
    assert simclr().alignment((z, z), (z, z)).item() == pytest.approx(math.log(2 * 3))
    predicted, target = tuple(views()), tuple(views(seed=1))
    swapped = simclr().alignment(predicted, target[::-1])
    assert not torch.isclose(simclr().alignment(predicted, target), swapped)


def test_simclrs_alignment_works_both_ways():
    predicted, target = tuple(views()), tuple(views(seed=1))
    torch.testing.assert_close(
        simclr().alignment(predicted, target), simclr().alignment(target, predicted)
    )

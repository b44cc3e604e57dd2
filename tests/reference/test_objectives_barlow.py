"""Barlow Twins against a version written as the paper's formulas read."""

import pytest
import torch
from torch import nn

from methods.backbones import cnn
from methods.objectives.barlow_twins import BarlowTwins, Config, barlow_loss


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(batch=5, dim=7, seed=0):
    return torch.randn(batch, dim, generator=rng(seed), dtype=torch.float64).requires_grad_()


def build(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8)).double()
        return backbone, BarlowTwins(Config(projection_dim=10, **settings), backbone).double()


def images(batch=6):
    draws = rng(9)
    first = torch.randn(batch, 1, 8, 8, generator=draws, dtype=torch.float64)
    return first, 2 + 3 * torch.randn(batch, 1, 8, 8, generator=draws, dtype=torch.float64)


def same_gradients(ours, theirs, inputs):
    for one, two in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(one, two)


def naive_barlow(z1, z2, weight, eps=1e-5):
    """Equations 1 and 2 of Zbontar et al. (2021), entry by entry."""
    count, dim = z1.shape

    def standard(z):
        mean = sum(z) / count
        variance = sum((row - mean) ** 2 for row in z) / count
        return [(row - mean) / (variance + eps) ** 0.5 for row in z]

    a, b = standard(z1), standard(z2)
    loss = 0
    for i in range(dim):
        for j in range(dim):
            correlation = sum(a[k][i] * b[k][j] for k in range(count)) / count
            loss = loss + ((1 - correlation) ** 2 if i == j else weight * correlation**2)
    return loss


@pytest.mark.parametrize("weight", [0.0, 5e-3, 1.0])
@pytest.mark.parametrize("batch", [2, 5])
def test_barlows_loss_is_the_double_loop_and_so_are_its_gradients(batch, weight):
    z1, z2 = rows(batch), rows(batch, seed=1)
    fast, slow = barlow_loss(z1, z2, weight), naive_barlow(z1, z2, weight)
    torch.testing.assert_close(fast, slow)
    same_gradients(fast, slow, (z1, z2))


def test_projections_are_the_projectors_outputs_view_by_view():
    backbone, objective = build()
    given = images()
    found = objective(backbone, given, rng())
    for features, projections, view in zip(found.features, found.projections, given, strict=True):
        torch.testing.assert_close(features, backbone(view))
        torch.testing.assert_close(projections, objective.projector(features))
        assert projections.shape == (6, objective.projection_dim) == (6, 10)


def test_the_projector_leaves_normalisation_to_the_loss():
    _, objective = build()
    last = objective.projector[-1]
    assert isinstance(last, nn.Linear)
    assert last.bias is None


def test_barlows_objective_scales_the_loss_of_its_projections():
    backbone, objective = build(scale=0.3, redundancy_weight=0.02)
    found = objective(backbone, images(), rng())
    torch.testing.assert_close(found.loss, 0.3 * naive_barlow(*found.projections, 0.02))
    assert (Config().scale, Config().redundancy_weight) == (0.1, 0.005)


def test_barlows_loss_sees_neither_lengths_nor_offsets_of_columns():
    z1, z2 = (1000 * rows(seed=seed) for seed in (0, 1))
    factors = torch.linspace(1, 3, 7)
    torch.testing.assert_close(
        barlow_loss(factors * z1 + 7, z2 / factors - 1000, 0.1),
        barlow_loss(z1, z2, 0.1),
        rtol=1e-6,
        atol=0,
    )


def test_barlows_loss_of_independent_columns_that_agree_is_zero():
    z = 1000 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert barlow_loss(z, z, 0.1).item() == pytest.approx(0, abs=1e-9)
    assert barlow_loss(z, -z, 0.1).item() == pytest.approx(2 * 4)
    assert barlow_loss(z[:, :1].expand(-1, 3), z[:, :1].expand(-1, 3), 0.1).item() == pytest.approx(
        6 * 0.1  # all six entries off the diagonal are 1
    )


def test_barlows_loss_of_constant_columns_is_finite_and_so_are_its_gradients():
    z1 = torch.full((4, 3), 0.1, requires_grad=True)
    z2 = torch.cat([torch.zeros(4, 1), rows(4, 2).float().detach()], dim=1).requires_grad_()
    loss = barlow_loss(z1, z2, 0.1)
    assert loss.item() == pytest.approx(3)  # nothing correlates: the diagonal is 0, not 1
    loss.backward()
    assert z1.grad.isfinite().all()
    assert z2.grad.isfinite().all()


@pytest.mark.parametrize("num_views", [1, 2])
def test_alignment_is_the_mean_over_views_of_the_loss_with_the_same_view(num_views):
    _, objective = build()
    predicted = (rows(), rows(seed=1))[:num_views]
    target = (rows(seed=2).detach(), rows(seed=3).detach())[:num_views]
    found = objective.alignment(predicted, target)
    terms = [0.1 * naive_barlow(p, z, 5e-3) for p, z in zip(predicted, target, strict=True)]
    wanted = sum(terms) / num_views
    torch.testing.assert_close(found, wanted)
    same_gradients(found, wanted, predicted)


def test_alignment_pairs_views_and_refuses_one_without_a_target():
    _, objective = build()
    predicted, target = (rows(), rows(seed=1)), (rows(seed=2), rows(seed=3))
    swapped = objective.alignment(predicted, target[::-1])
    assert not torch.isclose(objective.alignment(predicted, target), swapped)
    with pytest.raises(ValueError, match="shorter"):
        objective.alignment(predicted, target[:1])

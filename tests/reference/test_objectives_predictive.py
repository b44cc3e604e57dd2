"""SimSiam and BYOL, which predict one view from the other, against the papers' formulas."""

import copy

import pytest
import torch

from methods.backbones import cnn
from methods.objectives import byol, simsiam
from methods.objectives.byol import distance


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(batch=5, dim=7, seed=0):
    return torch.randn(batch, dim, generator=rng(seed), dtype=torch.float64).requires_grad_()


def pair(seed):
    return rows(seed=seed), rows(seed=seed + 1)


def images(batch=6):
    draws = rng(9)
    first = torch.randn(batch, 1, 8, 8, generator=draws, dtype=torch.float64)
    return first, 2 + 3 * torch.randn(batch, 1, 8, 8, generator=draws, dtype=torch.float64)


def build(module, **settings):
    """A small backbone and an objective in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = cnn.build(cnn.Config((4, 8)), (1, 8, 8)).double()
        small = module.Config(projection_dim=10, **settings)
        return backbone, module.build(small, backbone).double()


def nudge(module):
    """Move every parameter, as an optimizer step would."""
    draws = rng(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)
                parameter.add_(0.1 * noise)


def same_gradients(ours, theirs, inputs):
    for one, two in zip(
        torch.autograd.grad(ours, inputs, retain_graph=True),
        torch.autograd.grad(theirs, inputs, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


def cosine(p, z):
    return (p @ z) / (p.norm() * z.norm())


def naive_simsiam(p1, p2, z1, z2):
    """Equations 1 and 4 of Chen and He (2021), image by image; z are constants."""
    terms = [
        -cosine(p1[i], z2[i].detach()) / 2 - cosine(p2[i], z1[i].detach()) / 2
        for i in range(len(p1))
    ]
    return sum(terms) / len(terms)


def naive_byol(p1, p2, z1, z2):
    """Equation 2 of Grill et al. (2020) and its mirror image: distances on the unit sphere."""

    def squared(p, z):
        return (p / p.norm() - z.detach() / z.detach().norm()).square().sum()

    terms = [squared(p1[i], z2[i]) + squared(p2[i], z1[i]) for i in range(len(p1))]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("module", "naive"), [(simsiam, naive_simsiam), (byol, naive_byol)])
def test_the_loss_on_images_is_the_formula_and_targets_are_constants(module, naive):
    """Gradients of projections, predictor and backbone are those of a graph without targets."""
    backbone, objective = build(module)
    nudge(backbone)
    nudge(objective)
    first, second = images()
    target = getattr(objective, "target", None)
    fixed = None if target is None else copy.deepcopy(target.net)
    found = objective(backbone, (first, second), rng())
    z1, z2 = found.projections
    p1, p2 = objective.predictor(z1), objective.predictor(z2)
    t1, t2 = (z1, z2) if fixed is None else (fixed(first), fixed(second))
    wanted = naive(p1, p2, t1, t2)
    torch.testing.assert_close(found.loss, wanted)
    inputs = [
        *found.projections,
        *objective.predictor.parameters(),
        *objective.projector.parameters(),
        *backbone.parameters(),
    ]
    same_gradients(found.loss, wanted, inputs)


def test_the_comparison_above_would_notice_a_gradient_through_simsiams_targets():
    backbone, objective = build(simsiam)
    z1, z2 = objective(backbone, images(), rng()).projections
    p1, p2 = objective.predictor(z1), objective.predictor(z2)
    leaking = -(torch.cosine_similarity(p1, z2) + torch.cosine_similarity(p2, z1)).mean() / 2
    stopped = naive_simsiam(p1, p2, z1, z2)
    torch.testing.assert_close(leaking, stopped)
    with pytest.raises(AssertionError):
        same_gradients(leaking, stopped, (z1, z2))


def test_a_simsiam_branch_gets_a_gradient_as_prediction_and_none_as_target():
    """With a predictor that has forgotten its input, nothing is left to learn for the encoder."""
    backbone, objective = build(simsiam)
    with torch.no_grad():
        objective.predictor[-1].weight.zero_()
        objective.predictor[-1].bias.copy_(rows(1, 10)[0])
    objective(backbone, images(), rng()).loss.backward()
    assert objective.predictor[-1].bias.grad.abs().max() > 1e-3
    for module in (backbone, objective.projector):
        assert all(p.grad.abs().max() == 0 for p in module.parameters())


@pytest.mark.parametrize("module", [simsiam, byol])
def test_projections_are_the_projectors_outputs_view_by_view(module):
    backbone, objective = build(module)
    first, second = images()
    found = objective(backbone, (first, second), rng())
    for features, projections, view in zip(
        found.features, found.projections, (first, second), strict=True
    ):
        torch.testing.assert_close(features, backbone(view))
        torch.testing.assert_close(projections, objective.projector(features))
        assert projections.shape == (6, objective.projection_dim) == (6, 10)


@pytest.mark.parametrize("module", [simsiam, byol])
def test_the_predictor_has_the_hidden_units_asked_for(module):
    _, objective = build(module, predictor_dim=3)
    assert objective.predictor[0].out_features == 3
    assert module.Config().predictor_dim == 512


def test_byols_distance_is_between_0_and_4():
    z = rows()
    for factor, wanted in ((2.0, 0.0), (-1.0, 4.0)):
        torch.testing.assert_close(distance(factor * z, z), torch.tensor(wanted).double())
    assert distance(torch.eye(2)[:1], torch.eye(2)[1:]) == 2


def test_byols_target_network_has_no_gradient_and_the_predictor_has_one():
    backbone, objective = build(byol)
    objective(backbone, images(), rng()).loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in objective.target.parameters())
    for module in (backbone, objective.projector, objective.predictor):
        assert all(p.grad.abs().max() > 0 for p in module.parameters())


def test_byols_target_network_starts_as_a_copy_that_shares_nothing():
    backbone, objective = build(byol)
    live = {**named(backbone, "net.0."), **named(objective.projector, "net.1.")}
    copied = named(objective.target)
    assert copied.keys() == live.keys()
    for name, tensor in copied.items():
        assert torch.equal(tensor, live[name]), name
    pointers = [t.data_ptr() for t in (*copied.values(), *live.values())]
    assert len(set(pointers)) == len(pointers)


def named(module, prefix=""):
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def test_byols_target_moves_once_a_step_by_a_hundredth_and_only_then():
    backbone, objective = build(byol)
    own = list(objective.target.parameters())
    live = [*backbone.parameters(), *objective.projector.parameters()]
    theta0 = [p.clone() for p in own]
    nudge(backbone)
    nudge(objective)
    theta1 = [p.clone() for p in live]
    objective(backbone, images(), rng()).loss.backward()
    assert all(torch.equal(p, before) for p, before in zip(own, theta0, strict=True))
    objective.after_step(backbone)
    nudge(backbone)
    theta2 = [p.clone() for p in live]
    objective.after_step(backbone)
    for p, zero, one, two in zip(own, theta0, theta1, theta2, strict=True):
        torch.testing.assert_close(p, 0.99 * (0.99 * zero + 0.01 * one) + 0.01 * two)
    assert all(torch.equal(p, two) for p, two in zip(live, theta2, strict=True))


def test_byols_target_keeps_its_own_running_statistics():
    backbone, objective = build(byol)
    mean = objective.target.net[0].stages[0][1].running_mean
    objective(backbone, images(), rng())
    seen = mean.clone()
    assert not torch.equal(seen, torch.zeros_like(seen))
    backbone.stages[0][1].running_mean.add_(5)
    objective.after_step(backbone)
    assert torch.equal(mean, seen)


def test_byols_target_normalises_each_view_by_its_own_batch():
    backbone, objective = build(byol)
    first, second = images()
    fixed = copy.deepcopy(objective.target.net)
    found = objective(backbone, (first, second), rng()).loss
    with torch.no_grad():
        z1, z2 = fixed(first), fixed(second)
        p1, p2 = (objective.predictor(z) for z in (z1, z2))  # the nets are still equal
    torch.testing.assert_close(found.detach(), naive_byol(p1, p2, z1, z2))


def test_byol_measures_the_target_encoder_unless_told_otherwise():
    backbone, objective = build(byol)
    assert objective.encoder(backbone) is objective.target.net[0]
    backbone, objective = build(byol, measure="online")
    assert objective.encoder(backbone) is backbone


def test_byol_refuses_a_momentum_that_is_no_share():
    with pytest.raises(ValueError, match=r"momentum must be between 0 and 1, got 1\.5"):
        byol.Config(momentum=1.5)


def naive_distance(p, z):
    terms = [2 - 2 * cosine(p[i], z[i]) for i in range(len(p))]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("module", [simsiam, byol])
@pytest.mark.parametrize("num_views", [1, 2])
def test_alignment_is_the_mean_over_views_of_the_loss_with_the_same_view(module, num_views):
    _, objective = build(module)
    predicted = pair(0)[:num_views]
    target = tuple(z.detach() for z in pair(5)[:num_views])
    found = objective.alignment(predicted, target)
    terms = [naive_distance(p, z) for p, z in zip(predicted, target, strict=True)]
    wanted = sum(terms) / num_views
    torch.testing.assert_close(found, wanted)
    same_gradients(found, wanted, predicted)
    if num_views == 2:
        assert not torch.isclose(found, objective.alignment(predicted, target[::-1]))


@pytest.mark.parametrize("module", [simsiam, byol])
def test_alignment_refuses_views_without_a_target(module):
    _, objective = build(module)
    with pytest.raises(ValueError, match="shorter"):
        objective.alignment(pair(0), pair(5)[:1])

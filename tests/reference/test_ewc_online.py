"""Online EWC: Fisher information against single backward passes, the penalty by its definition."""

import itertools

import pytest
import torch
from tiny import difference, tiny_run, view
from torch.nn import functional as F

from methods.base import Batch
from methods.parts.fisher import CHUNK
from methods.supervised.ewc_online import Config, EWCOnline


def built(**settings):
    """A trial whose method, with these settings, has made some steps on the first task."""
    run = tiny_run("ewc_online")
    run.method = EWCOnline(Config(**settings), run.method.ctx)
    for batch in stream(run, 0, 3):
        run.method.observe(batch)
    return run


def stream(run, task, count):
    """The first batches of a task."""
    return list(itertools.islice(run._batches(run.scenario.tasks[task]), count))


def first_images(run, task, count):
    data = view(run, task).data
    return Batch(data.x[:count], data.y[:count], data.index[:count])


def squares(method, image, label):
    """The squared gradient (P,) of an image's log-likelihood, and the label's probability."""
    method.net.eval()
    log_p = method.net(method.ctx.normalize(image[None])).log_softmax(1)[0, label]
    gradients = torch.autograd.grad(log_p, [*method.net.parameters()])
    return torch.cat([g.flatten() for g in gradients]) ** 2, log_p.exp().detach()


def states(method):
    return {name: value.clone() for name, value in method.net.state_dict().items()}


@pytest.mark.parametrize("kind", ["weighted", "empirical"])
def test_fisher_information_is_the_mean_over_single_images(kind):
    run = built(fisher=kind)
    data = first_images(run, 0, CHUNK + 9)
    total = 0
    for image, label in zip(data.x, data.y, strict=True):
        square, p = squares(run.method, image, label)
        total = total + (p * square if kind == "weighted" else square)
    expected = total / (CHUNK + 9)
    assert expected.max() > 1e-4
    torch.testing.assert_close(run.method.fisher(data), expected, rtol=1e-3, atol=1e-8)


def test_fisher_information_leaves_statistics_modes_and_gradients_alone():
    run = built()
    run.method.net.train()
    before, gradients = states(run.method), [p.grad for p in run.method.net.parameters()]
    run.method.end_task(view(run, 0))
    assert difference(states(run.method), before) is None
    assert all(module.training for module in run.method.net.modules())
    now = [p.grad for p in run.method.net.parameters()]
    assert all(one is other for one, other in zip(now, gradients, strict=True))


def test_old_information_is_kept_by_gamma_and_the_anchor_moves():
    run = built(fisher_gamma=0.25)
    method = run.method
    method.end_task(view(run, 0))
    old = method.held["fisher"].clone()
    torch.testing.assert_close(old, method.fisher(view(run, 0).data))
    for batch in stream(run, 1, 3):
        method.observe(batch)
    method.end_task(view(run, 1))
    torch.testing.assert_close(method.held["fisher"], 0.25 * old + method.fisher(view(run, 1).data))
    weights = torch.cat([p.detach().flatten() for p in method.net.parameters()])
    assert torch.equal(method.held["anchor"], weights)


def test_there_is_no_penalty_in_the_first_task():
    ours, theirs = built(), tiny_run("finetune")
    for batch in stream(ours, 0, 3):
        assert theirs.method.observe(batch).keys() == {"stream"}
    assert difference(states(ours.method), states(theirs.method)) is None
    assert ours.method.memory() == {"importance": 0}


def test_the_penalty_pulls_by_twice_lambda_times_information_times_distance():
    run = built(e_lambda=3.0)
    method = run.method
    parameters = [*method.net.parameters()]
    rng = torch.Generator().manual_seed(0)
    fisher, anchor = torch.rand(2, method.parameters(), generator=rng)
    method.held.put(fisher=fisher, anchor=anchor)
    penalty = method.loss(stream(run, 1, 1)[0])["penalty"]
    gradients = torch.autograd.grad(penalty, parameters)
    start = 0
    value = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        own = slice(start, start + parameter.numel())
        strayed = parameter.detach() - anchor[own].view_as(parameter)
        weight = fisher[own].view_as(parameter)
        torch.testing.assert_close(gradient, 2 * 3.0 * weight * strayed)
        value += 3.0 * (weight * strayed**2).sum()
        start += parameter.numel()
    torch.testing.assert_close(penalty.detach(), value)


def test_the_penalty_is_added_to_the_cross_entropy_over_all_classes():
    run = built()
    method = run.method
    method.end_task(view(run, 0))
    batch = stream(run, 1, 1)[0]
    rng = method.ctx.random("augment")
    state = rng.get_state()
    terms = method.loss(batch)
    rng.set_state(state)
    expected = F.cross_entropy(method.net(method.views(batch.x)), batch.y)
    assert terms.keys() == {"stream", "penalty"}
    torch.testing.assert_close(terms["stream"], expected)
    assert terms["penalty"].item() == 0  # nothing has moved yet


def test_one_sample_gives_the_information_of_one_of_the_images():
    run = built(fisher_samples=1)
    data = first_images(run, 0, 5)
    found = run.method.fisher(data)
    singles = [squares(run.method, x, y) for x, y in zip(data.x, data.y, strict=True)]
    matches = [torch.allclose(found, p * square, rtol=1e-3, atol=1e-8) for square, p in singles]
    assert sum(matches) == 1


def test_more_samples_than_images_are_all_images():
    some, every = built(fisher_samples=1000), built()
    data = first_images(some, 0, 20)
    torch.testing.assert_close(some.method.fisher(data), every.method.fisher(data))


@pytest.mark.parametrize(
    "wrong", [{"e_lambda": -1.0}, {"fisher_gamma": 1.5}, {"fisher_samples": 0}]
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)

"""SI against a plain loop over parameters, and by hand."""

import itertools

import pytest
import torch
from tiny import difference, tiny_run, view
from torch.nn import functional as F

from methods.supervised.si import SI, Config


def built(protocol=None, **settings):
    """A freshly built trial and an SI of these settings in its place."""
    run = tiny_run("si", **(protocol or {}))
    run.method = SI(Config(**settings), run.method.ctx)
    return run


def stream(run, task, count=4):
    """The first batches of a task."""
    return list(itertools.islice(run._batches(run.scenario.tasks[task]), count))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def naive(method, tasks, config, passes=1):
    """Train the method's bare network by loops; importance and anchor after each task."""
    parameters = [*method.net.parameters()]
    anchor = [p.detach().clone() for p in parameters]
    omega = [torch.zeros_like(p) for p in parameters]
    method.net.train()
    for batches in tasks:
        path = [torch.zeros_like(p) for p in parameters]
        for batch in [batch for batch in batches for _ in range(passes)]:
            method.optimizer.zero_grad()
            F.cross_entropy(method.net(method.views(batch.x)), batch.y).backward()
            gradients = [p.grad.clone() for p in parameters]
            before = [p.detach().clone() for p in parameters]
            for p, start, weight in zip(parameters, anchor, omega, strict=True):
                p.grad += 2 * config.c * weight * (p.detach() - start)
                if config.clip is not None:
                    p.grad = p.grad.clip(-config.clip, config.clip)
            method.optimizer.step()
            for i, p in enumerate(parameters):
                path[i] += gradients[i] * (before[i] - p.detach())
        for i, p in enumerate(parameters):
            now = p.detach().clone()
            omega[i] = omega[i] + path[i] / ((now - anchor[i]) ** 2 + config.xi)
            if config.clamp_omega:
                omega[i] = torch.where(omega[i] < 0, 0.0, omega[i])
            anchor[i] = now
    return flat(omega), flat(anchor)


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        ({"c": 30.0, "clip": 0.02}, {"momentum": 0.9}),
        ({"c": 30.0, "clip": None, "clamp_omega": False}, {"optimizer": "adam", "lr": 0.01}),
        ({"c": 30.0, "xi": 0.1}, {"passes": 2, "momentum": 0.5}),
    ],
)
def test_training_on_two_tasks_is_that_of_a_loop_over_parameters(settings, protocol):
    config = Config(**settings)
    ours, theirs = built(protocol, **settings), built(protocol, **settings)
    tasks = [stream(ours, 0), stream(ours, 1)]
    for position, batches in enumerate(tasks):
        for batch in batches:
            ours.method.observe(batch)
        ours.method.end_task(view(ours, position))
    omega, anchor = naive(theirs.method, tasks, config, protocol.get("passes", 1))
    assert omega.abs().max() > 1e-3
    torch.testing.assert_close(ours.method.held["omega"], omega, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(ours.method.held["anchor"], anchor, rtol=1e-3, atol=1e-6)


def test_importance_adds_up_over_tasks_and_the_path_starts_anew():
    run = built(xi=0.25)
    held = run.method.held
    for task, total in enumerate([4.0, 8.0, 12.0]):
        held.put(path=torch.ones_like(held["path"]))
        run.method.end_task(view(run, task))  # nothing has moved: 1 / xi is added
        assert held["omega"].unique().tolist() == [total]
        assert not held["path"].any()


@pytest.mark.parametrize(("clamp_omega", "expected"), [(True, 0.0), (False, -4.0)])
def test_negative_importance_is_cut_off_if_so_set(clamp_omega, expected):
    run = built(xi=0.25, clamp_omega=clamp_omega)
    run.method.held.put(path=-torch.ones_like(run.method.held["path"]))
    run.method.end_task(view(run, 0))
    assert run.method.held["omega"].unique().tolist() == [expected]


def test_importance_is_damped_by_the_way_that_a_parameter_went():
    run = built(xi=0.5)
    held = run.method.held
    held.put(anchor=held["anchor"] - 2, path=torch.full_like(held["path"], 9.0))
    run.method.end_task(view(run, 0))
    torch.testing.assert_close(held["omega"], torch.full_like(held["omega"], 2.0))


def test_the_first_task_without_clipping_is_finetuning():
    ours, theirs = built(clip=None), tiny_run("finetune")
    for batch in stream(ours, 0):
        losses = ours.method.observe(batch)
        assert difference(losses, theirs.method.observe(batch)) is None
    assert difference(ours.method.net.state_dict(), theirs.method.net.state_dict()) is None


def test_the_penalty_pulls_back_by_twice_c_times_importance_times_distance_and_is_clipped():
    run = built(c=0.5, clip=0.3)
    held = run.method.held
    omega = torch.linspace(0, 1, len(held["omega"]))
    held.put(omega=omega, anchor=held["anchor"] - 0.4)
    run.method.optimizer.zero_grad()  # no gradient of a loss
    run.method.adjust_gradients()
    found = flat(p.grad for p in run.method.net.parameters())
    torch.testing.assert_close(found, (0.4 * omega).clip(max=0.3))


def test_every_parameter_and_no_running_statistic_has_an_importance():
    run = built()
    count = sum(p.numel() for p in run.method.net.parameters())
    assert run.method.held["omega"].shape == (count,)
    assert run.method.memory() == {"importance": 3 * 4 * count}


@pytest.mark.parametrize("wrong", [{"c": -1.0}, {"xi": 0.0}, {"clip": 0.0}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)

"""EWC: Fisher information against single backward passes, its average, and the penalty."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from tiny import difference, tiny_run, view
from torch.nn import functional as F

from methods.base import Batch
from methods.parts.fisher import CHUNK, drawn
from methods.supervised.ewc import EWC, Config


def stream(run, task, count):
    """The first batches of a task."""
    return list(itertools.islice(run._batches(run.scenario.tasks[task]), count))


def learned(tasks, **settings):
    """A run that has made some steps on so many tasks, and began the next."""
    run = tiny_run("ewc")
    run.method = EWC(Config(**settings), run.method.ctx)
    for position in range(tasks):
        run.method.begin_task(view(run, position))
        for batch in stream(run, position, 3):
            run.method.observe(batch)
        run.method.end_task(view(run, position))
    run.method.begin_task(view(run, tasks))
    return run


def by_parameter(method, flat):
    """Pieces of a vector (P,) by the names of the parameters."""
    found, start = {}, 0
    for name, parameter in method.net.named_parameters():
        found[name] = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    assert start == len(flat)
    return found


def weights(method):
    return torch.cat([p.detach().flatten() for p in method.net.parameters()])


def first_images(run, task, count):
    data = view(run, task).data
    return Batch(data.x[:count], data.y[:count], data.index[:count])


def naive_fisher(method, data, seen):
    """Mean of the squared gradients of log p over the classes seen, one image at a time."""
    method.net.eval()
    total = 0
    for image, label in zip(data.x, data.y, strict=True):
        logits = method.net(method.ctx.normalize(image[None]))[0, :seen]
        log_p = logits[label] - logits.exp().sum().log()
        gradients = torch.autograd.grad(log_p, [*method.net.parameters()])
        total = total + torch.cat([g.flatten() for g in gradients]) ** 2
    return total / len(data.x)


@pytest.mark.parametrize("outputs", ["new", "seen"])
@pytest.mark.parametrize("tasks", [0, 2])
def test_fisher_information_is_the_mean_over_single_images_and_the_classes_seen(outputs, tasks):
    run = learned(tasks, outputs=outputs, fisher_clip=None)
    data = first_images(run, tasks, CHUNK + 9)
    wanted = naive_fisher(run.method, data, 2 * tasks + 2)
    assert wanted.max() > 1e-4
    torch.testing.assert_close(run.method.fisher(data), wanted, rtol=1e-3, atol=1e-8)


def test_no_parameter_counts_more_than_the_clip():
    run = learned(1)
    data = first_images(run, 1, 20)
    wanted = naive_fisher(run.method, data, 4)
    assert wanted.max() > 1e-4 > wanted.min()
    torch.testing.assert_close(
        run.method.fisher(data), wanted.clamp(max=1e-4), rtol=1e-3, atol=1e-8
    )


def test_fisher_information_leaves_statistics_modes_and_gradients_alone():
    run = learned(1)
    method = run.method
    method.net.train()
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    gradients = [p.grad for p in method.net.parameters()]
    method.end_task(view(run, 1))
    assert difference(method.net.state_dict(), before) is None
    assert all(module.training for module in method.net.modules())
    now = [p.grad for p in method.net.parameters()]
    assert all(one is other for one, other in zip(now, gradients, strict=True))


def test_all_tasks_are_averaged_by_their_numbers_of_classes():
    run = tiny_run("ewc")
    method = run.method
    merged = None
    for position in range(4):
        method.begin_task(view(run, position))
        for batch in stream(run, position, 3):
            method.observe(batch)
        new = by_parameter(method, method.fisher(view(run, position).data))
        method.end_task(view(run, position))
        past, seen = 2 * position, 2 * position + 2
        if merged is None:
            merged = {name: value.clone() for name, value in new.items()}
        else:
            for name, value in new.items():
                if name.startswith("1."):  # the head: its new rows are taken as they are
                    value[:past] = past / seen * merged[name][:past] + 2 / seen * value[:past]
                    merged[name] = value
                else:
                    merged[name] = past / seen * merged[name] + 2 / seen * value
        held = by_parameter(method, method.held["fisher"])
        for name, value in merged.items():
            torch.testing.assert_close(held[name], value)
        assert torch.equal(method.held["anchor"], weights(method))


def test_the_average_counts_the_classes_of_unequal_tasks():
    method = learned(1).method
    method.current.begin(SimpleNamespace(position=1, classes=range(6, 8)))
    share = by_parameter(method, method.old_share())
    for name, piece in share.items():
        if name.startswith("1."):
            assert torch.equal(piece[:6], torch.full_like(piece[:6], 0.75))
            assert not piece[6:].any()
        else:
            assert torch.equal(piece, torch.full_like(piece, 0.75))


def test_there_is_no_penalty_in_the_first_task():
    run = learned(0)
    assert run.method.observe(stream(run, 0, 1)[0]).keys() == {"stream"}
    assert run.method.memory() == {"importance": 0}


def test_the_penalty_is_nothing_when_a_task_begins_and_something_after_a_step():
    run = learned(1)
    first, second = stream(run, 1, 2)
    assert float(run.method.observe(first)["penalty"]) == 0
    assert float(run.method.observe(second)["penalty"]) > 0


def test_the_penalty_pulls_by_lambda_times_information_times_distance():
    run = learned(1, ewc_lambda=3.0)
    method = run.method
    rng = torch.Generator().manual_seed(0)
    fisher, anchor = torch.rand(2, method.parameters(), generator=rng)
    method.held.put(fisher=fisher, anchor=anchor)
    penalty = method.loss(stream(run, 1, 1)[0])["penalty"]
    gradients = torch.autograd.grad(penalty, [*method.net.parameters()])
    strayed = weights(method) - anchor
    torch.testing.assert_close(torch.cat([g.flatten() for g in gradients]), 3.0 * fisher * strayed)
    wanted = sum(3.0 / 2 * float(f) * float(s) ** 2 for f, s in zip(fisher, strayed, strict=True))
    assert float(penalty.detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("outputs", ["new", "seen"])
def test_class_weights_to_come_are_free(outputs):
    run = learned(2, outputs=outputs)
    method = run.method
    held = by_parameter(method, method.held["fisher"])
    for name in ("1.weight", "1.bias"):
        assert held[name][:4].any(1 if name == "1.weight" else 0).all()
        assert not held[name][4:].any()
    with torch.no_grad():
        method.head.weight[4:] += 100
        method.head.bias[4:] -= 100
    assert float(method.loss(stream(run, 2, 1)[0])["penalty"].detach()) == 0


@pytest.mark.parametrize(("outputs", "first"), [("new", 4), ("seen", 0)])
def test_the_cross_entropy_is_over_the_new_classes_or_those_seen(outputs, first):
    run = learned(2, outputs=outputs)
    method, batch = run.method, stream(run, 2, 1)[0]
    method.net.train()
    stated = method.loss(batch)["stream"]
    logits = method.net(method.ctx.normalize(batch.x))[:, first:6]
    torch.testing.assert_close(stated, F.cross_entropy(logits, batch.y - first))


def test_a_strong_penalty_holds_the_parameters_that_matter():
    def moved(strength):
        run = learned(1, ewc_lambda=strength)
        method = run.method
        anchor, important = method.held["anchor"], method.held["fisher"] >= 5e-5
        for batch in stream(run, 1, 8):
            method.observe(batch)
        return float((weights(method) - anchor)[important].norm())

    assert moved(1e5) < 0.5 * moved(0.0)


def test_memory_is_two_numbers_a_parameter():
    method = learned(1).method
    assert method.memory() == {"importance": 2 * 4 * method.parameters()}


def test_one_sample_gives_the_information_of_one_of_the_images():
    run = learned(0, fisher_samples=1, fisher_clip=None)
    data = first_images(run, 0, 5)
    found = run.method.fisher(data)
    singles = [
        naive_fisher(run.method, Batch(data.x[i : i + 1], data.y[i : i + 1], data.index), 2)
        for i in range(5)
    ]
    assert sum(torch.allclose(found, one, rtol=1e-3, atol=1e-8) for one in singles) == 1


def test_drawn_images_are_different_and_keep_their_labels():
    labels = torch.arange(50)
    data = Batch(labels.to(torch.uint8).view(-1, 1, 1, 1), labels, labels + 100)
    some = drawn(data, 20, torch.Generator().manual_seed(0))
    assert len(set(some.y.tolist())) == 20
    assert some.y.tolist() != list(range(20))
    assert torch.equal(some.x.flatten().long(), some.y)
    assert torch.equal(some.index, some.y + 100)
    for count in (None, 50, 51):
        assert drawn(data, count, torch.Generator()) is data


def test_tasks_that_share_classes_are_refused():
    with pytest.raises(ValueError, match="classes of their own"):
        EWC.check(Config(), SimpleNamespace(num_classes=10, task_classes=(10, 10)))


@pytest.mark.parametrize(
    "wrong", [{"ewc_lambda": -1.0}, {"fisher_clip": 0.0}, {"fisher_samples": 0}]
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)

"""CLS-ER's two averages: how they move, which of them teaches, and which is measured."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import difference, tiny_run
from torch import nn
from torch.nn import functional as F

from methods.supervised.cls_er import MovingAverage, more_confident


def stream_of(run, task=0):
    return list(run._batches(run.scenario.tasks[task]))


def rng():
    return torch.Generator().manual_seed(0)


def test_each_image_is_taught_by_the_average_that_is_surer_of_its_class():
    stable = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    plastic = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    y = torch.tensor([0, 1, 1, 0])
    # Logits of 5 and 5 mean less than 1 and 0: it is the probability that counts.
    expected = torch.stack([stable[0], plastic[1], plastic[2], plastic[3]])
    assert torch.equal(more_confident(stable, plastic, y), expected)


def test_an_average_begins_as_the_plain_mean_of_all_weights():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 10.0)
    average = MovingAverage(net, alpha=0.999, update_freq=1.0)
    weights = [10.0]
    for value in (4.0, -2.0, 7.0, 0.0):
        nn.init.constant_(net.weight, value)
        weights.append(value)
        average.follow(rng())
        assert average.net.weight.item() == pytest.approx(sum(weights) / len(weights))


def test_an_average_never_keeps_more_of_itself_than_alpha():
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, alpha=0.6, update_freq=1.0)
    expected = net.weight.item()
    for step in range(1, 6):
        nn.init.constant_(net.weight, float(step))
        average.follow(rng())
        alpha = min(1 - 1 / (step + 1), 0.6)
        expected = alpha * expected + (1 - alpha) * step
        assert average.net.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_warm_up_counts_steps_in_which_the_average_stays_as_well():
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, alpha=0.999, update_freq=0.0)
    for _ in range(9):
        average.follow(rng())
    average._update_freq = 1.0
    start = average.net.weight.item()
    nn.init.constant_(net.weight, 1.0)
    average.follow(rng())
    assert average.net.weight.item() == pytest.approx(start * 10 / 11 + 1 / 11)


def test_an_average_moves_as_often_as_it_should():
    net = nn.Linear(1, 1, bias=False)
    average, draws, moved = MovingAverage(net, alpha=0.0, update_freq=0.7), rng(), 0
    for step in range(2000):
        nn.init.constant_(net.weight, float(step))
        average.follow(draws)
        moved += average.net.weight.item() == step
    assert abs(moved / 2000 - 0.7) < 0.04


def test_statistics_of_batch_normalisation_are_copied_when_an_average_moves():
    net = nn.Sequential(nn.BatchNorm1d(2))
    moving = MovingAverage(net, alpha=0.999, update_freq=1.0)
    resting = MovingAverage(net, alpha=0.999, update_freq=0.0)
    at_first = copy.deepcopy(net.state_dict())
    net(torch.randn(8, 2, generator=rng()) + 3)
    for average in (moving, resting):
        average.follow(rng())
        assert not average.net.training
    assert difference(dict(moving.net.named_buffers()), dict(net.named_buffers())) is None
    assert difference(resting.net.state_dict(), at_first) is None
    assert not torch.equal(net[0].running_mean, at_first["0.running_mean"])


def test_the_losses_are_those_of_a_plain_computation():
    run = tiny_run("cls_er", augmentation="simclr")
    method = run.method
    stream = stream_of(run)
    for batch in stream[:3]:
        method.observe(batch)
    with torch.no_grad():  # so that each average is surer of some images
        method.plastic.net[1].weight.add_(torch.randn(10, 8, generator=rng()))
    batch, streams = stream[3], copy.deepcopy(run.random.state_dict())
    live, stable, plastic = (
        copy.deepcopy(net) for net in (method.net, method.stable.net, method.plastic.net)
    )
    terms = method.loss(batch)

    run.random.load_state_dict(streams)
    x = method.views(batch.x)
    old = method.buffer.sample(16, run.random("replay"))
    old_x = method.views(old["x"])
    logits = live(torch.cat([x, old_x]))
    stable_z, plastic_z = stable.eval()(old_x), plastic.eval()(old_x)
    squares, chosen = [], set()
    for i, label in enumerate(old["y"].tolist()):
        surer = stable_z[i].softmax(0)[label] > plastic_z[i].softmax(0)[label]
        target = stable_z[i] if surer else plastic_z[i]
        chosen.add(bool(surer))
        squares += [(z - t) ** 2 for z, t in zip(logits[len(x) + i], target, strict=True)]
    assert chosen == {True, False}
    labels = torch.cat([batch.y, old["y"]])
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(logits, labels))
    torch.testing.assert_close(terms["consistency"], 0.1 * torch.stack(squares).mean())


def test_the_averages_teach_without_learning_from_gradients():
    run = tiny_run("cls_er")
    first, second, *_ = stream_of(run)
    run.method.observe(first)
    sum(run.method.loss(second).values()).backward()
    for average in (run.method.stable, run.method.plastic):
        assert all(parameter.grad is None for parameter in average.net.parameters())
    assert run.method.parameters() == tiny_run("finetune").method.parameters()


def test_the_first_batch_has_nothing_to_agree_with():
    run = tiny_run("cls_er")
    assert run.method.observe(stream_of(run)[0]).keys() == {"cross_entropy"}


def test_both_averages_follow_every_pass():
    run = tiny_run("cls_er", passes=3)
    run.method.observe(stream_of(run)[0])
    assert run.method.stable.steps == run.method.plastic.steps == 3


@pytest.mark.parametrize("which", ["stable", "plastic", "working"])
def test_the_network_that_was_chosen_is_measured(which):
    run = tiny_run("cls_er")
    method = run.method
    assert method.config.evaluate == "stable"
    method.config = replace(method.config, evaluate=which)
    stream = stream_of(run)
    for batch in stream[:-1]:
        method.observe(batch)
    nets = {"stable": method.stable.net, "plastic": method.plastic.net, "working": method.net}
    x = stream[-1].x
    with torch.no_grad():
        outputs = {
            name: copy.deepcopy(net).eval()(method.ctx.normalize(x)) for name, net in nets.items()
        }
        features = copy.deepcopy(nets[which]).eval()[0](method.ctx.normalize(x))
    torch.testing.assert_close(method.predict(x), outputs[which])
    torch.testing.assert_close(method.embed(x), features)
    for name, other in outputs.items():
        assert name == which or not torch.allclose(other, outputs[which], atol=1e-4)
    assert method.net.training


def test_an_average_goes_on_from_its_state():
    net = nn.Linear(2, 2)
    first = MovingAverage(net, alpha=0.999, update_freq=1.0)
    second = MovingAverage(nn.Linear(2, 2), alpha=0.999, update_freq=1.0)
    first.follow(rng())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.steps == 1
    assert difference(first.state_dict(), second.state_dict()) is None


def test_the_averages_are_counted_as_teachers():
    run = tiny_run("cls_er")
    one = sum(value.nbytes for value in run.method.net.state_dict().values())
    assert run.method.memory()["teachers"] == 2 * one

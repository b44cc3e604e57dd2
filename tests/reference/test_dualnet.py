"""DualNet against naive arithmetic: its networks, slow steps, look-ahead, replay and divergence."""

import copy
import math

import pytest
import torch
from tiny import difference, tiny_run, view
from torch import nn
from torch.nn import functional as F

from methods.backbones import cnn, mammoth_resnet18
from methods.base import Batch, Planned, Training
from methods.objectives.barlow_twins import barlow_loss
from methods.objectives.simclr import SimCLR
from methods.parts.dual_network import (
    FastNetwork,
    LookAhead,
    Projector,
    max_pooling,
    summed_divergence,
)
from methods.parts.feature_maps import map_shapes
from methods.supervised import dualnet


def made(tasks=0, **settings):
    """A run without augmentation that has learned `tasks` tasks and begun the next one."""
    run = tiny_run("dualnet", augmentation="none")
    run.method = dualnet.DualNet(dualnet.Config(**settings), run.method.ctx)
    for task in run.scenario.tasks[:tasks]:
        run._learn(task)
    run.random.start_task(tasks)
    run.method.begin_task(view(run, tasks))
    run.method.net.train()
    return run, next(iter(run._batches(run.scenario.tasks[tasks])))


def naive_barlow(z1, z2, redundancy):
    """The loss with loops over the entries of the correlation matrix."""
    za, zb = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z1, z2))
    loss = 0.0
    for i in range(z1.shape[1]):
        for j in range(z1.shape[1]):
            entry = (za[:, i] * zb[:, j]).mean()
            loss = loss + ((entry - 1) ** 2 if i == j else redundancy * entry**2)
    return loss


def naive_masked(method, x):
    """Masked features of normalised images, block by block, in the mode the networks are in."""
    h, m = F.max_pool2d(method.backbone.stem(x), 3, stride=2, padding=1), x
    for stage, block in zip(method.backbone.stages, method.fast.blocks, strict=True):
        h = stage(h)
        convolution, norm = block[0], block[1]
        m = F.conv2d(m, convolution.weight, convolution.bias, padding=1)
        m = F.max_pool2d(F.relu(norm(m)), 2, ceil_mode=True) * h
    return m.mean((2, 3))


def test_features_are_the_mean_of_the_fast_maps_masked_by_the_slow_ones():
    run, _ = made(1)
    method, x = run.method, run.scenario.dataset.test.x[:20]
    found, scores = method.embed(x), method.predict(x)
    method.net.eval()
    method.fast.eval()
    features = naive_masked(method, method.ctx.normalize(x))
    torch.testing.assert_close(found, features)
    torch.testing.assert_close(scores, features @ method.head.weight.T + method.head.bias)


def test_with_mammoths_resnet18_the_networks_have_the_parameters_counted_by_hand():
    shape = (3, 32, 32)
    with torch.device("meta"):
        slow = mammoth_resnet18.build(mammoth_resnet18.Config(), shape)
        maps = map_shapes(slow, shape, nn.MaxPool2d(3, stride=2, padding=1))
        fast, projector = FastNetwork(shape, maps), Projector(slow.feature_dim)
    assert maps == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert sum(p.numel() for p in slow.parameters()) == 11_168_832
    blocks = ((3, 64), (64, 128), (128, 256), (256, 512))
    by_hand = sum(9 * before * after + after + 2 * after for before, after in blocks)
    assert sum(p.numel() for p in fast.parameters()) == by_hand == 1_552_896
    assert sum(p.numel() for p in projector.parameters()) == 2 * 512 * 256 + 2 * 256


@pytest.mark.parametrize(
    ("before", "after", "side", "partial"),
    [
        ((32, 32), (16, 16), 2, True),
        ((7, 7), (4, 4), 2, True),
        ((7, 7), (3, 3), 2, False),
        ((84, 84), (11, 11), 8, True),  # a large stem and the pooling behind it
        ((8, 6), (4, 3), 2, True),
    ],
)
def test_the_fast_networks_pooling_leads_to_the_slow_maps_size(before, after, side, partial):
    pool = max_pooling(before, after)
    assert (pool.kernel_size, pool.ceil_mode) == (side, partial)
    assert pool(torch.zeros(1, 1, *before)).shape[2:] == after


def test_a_map_of_the_same_size_is_not_pooled():
    assert isinstance(max_pooling((5, 5), (5, 5)), nn.Identity)


def test_sizes_that_no_pooling_reaches_are_refused():
    with pytest.raises(ValueError, match="no max-pooling"):
        max_pooling((8, 8), (4, 2))
    with pytest.raises(ValueError, match="no max-pooling"):
        max_pooling((4, 4), (8, 8))


def test_the_slow_loss_is_that_of_loops_over_the_correlations():
    rng = torch.Generator().manual_seed(0)
    z1 = torch.randn(7, 5, generator=rng)
    z2 = z1 + torch.randn(7, 5, generator=rng)
    torch.testing.assert_close(barlow_loss(z1, z2, 2e-3), naive_barlow(z1, z2, 2e-3))


def test_look_ahead_goes_a_part_of_the_way_with_parameters_and_statistics_but_not_counters():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    start = copy.deepcopy(net.state_dict())
    look_ahead = LookAhead(net)
    vector = look_ahead.here()
    for _ in range(3):
        net(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    for parameter in net.parameters():
        parameter.data.add_(1.0)
    now = copy.deepcopy(net.state_dict())
    look_ahead.part_of_the_way(vector, 0.05)
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert int(value) == 3
        else:
            torch.testing.assert_close(value, start[name] + 0.05 * (now[name] - start[name]))
            assert not torch.equal(value, start[name])


def naive_slow_step(slow, projector, x, lr):
    """One step of gradient descent, in place, on views that are both `x`."""
    projections = []
    for _ in range(2):
        h = F.max_pool2d(slow.stem(x), 3, stride=2, padding=1)
        for stage in slow.stages:
            h = stage(h)
        projections.append(projector(h.mean((2, 3))))
    parameters = [*slow.parameters(), *projector.parameters()]
    gradients = torch.autograd.grad(naive_barlow(*projections, 2e-3), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.data.sub_(lr * gradient)


def naive_look_ahead(net, before, beta):
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.copy_(before[name] + beta * (value - before[name]))


@pytest.mark.parametrize("n_outer", [1, 2])
def test_the_slow_phase_is_steps_of_gradient_descent_and_a_part_of_their_way(n_outer):
    run, batch = made(0, slow_lr=0.5, beta=0.3, inner_steps=2, n_outer=n_outer)
    method = run.method
    nets = copy.deepcopy([method.backbone, method.projector])
    others = copy.deepcopy((method.head.state_dict(), method.fast.state_dict()))
    for _ in range(n_outer):
        start = copy.deepcopy([net.state_dict() for net in nets])
        for _ in range(2):
            naive_slow_step(*nets, method.ctx.normalize(batch.x), 0.5)
        for net, before in zip(nets, start, strict=True):
            naive_look_ahead(net, before, 0.3)
    method.before_passes(batch)
    for found, net in zip((method.backbone, method.projector), nets, strict=True):
        expected = net.state_dict()
        for name, value in found.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    assert difference((method.head.state_dict(), method.fast.state_dict()), others) is None


def test_a_single_image_teaches_the_slow_network_nothing():
    run, batch = made(0)
    before = copy.deepcopy(run.method.state_dict())
    run.method.before_passes(Batch(batch.x[:1], batch.y[:1], batch.index[:1]))
    assert difference(run.method.state_dict(), before) is None


def test_two_images_are_enough():
    run, batch = made(0)
    before = copy.deepcopy(run.method.projector.state_dict())
    losses = run.method.observe(Batch(batch.x[:2], batch.y[:2], batch.index[:2]))
    assert losses["stream"].isfinite()
    after = run.method.projector.state_dict()
    assert difference(after, before) is not None
    assert all(value.isfinite().all() for value in after.values())


def test_from_the_second_task_on_slow_steps_see_stored_images_alone():
    run, batch = made(1, slow_batch=8)
    other = made(1, slow_batch=8)[0].method
    black = Batch(torch.zeros_like(batch.x), batch.y, batch.index)
    run.method.before_passes(batch)
    other.before_passes(black)
    assert difference(run.method.state_dict(), other.state_dict()) is None


@pytest.mark.parametrize("native", [False, True])
def test_the_fast_phase_is_as_many_steps_on_all_that_reads_the_labels(native):
    run, batch = made(0, n_outer=0, inner_steps=3, native_optimizer=native)
    method, lr = run.method, 0.03 if native else 0.05
    copied = copy.deepcopy(nn.ModuleDict({"net": method.net, "fast": method.fast}))
    projector = copy.deepcopy(method.projector.state_dict())

    class Naive:
        backbone, head, fast = copied["net"][0], copied["net"][1], copied["fast"]

    x = method.ctx.normalize(batch.x)
    for _ in range(3):
        logits = Naive.head(naive_masked(Naive, x))
        loss = -logits.log_softmax(1)[range(len(x)), batch.y].mean()
        gradients = torch.autograd.grad(loss, list(copied.parameters()))
        for parameter, gradient in zip(copied.parameters(), gradients, strict=True):
            parameter.data.sub_(lr * gradient)
    method.observe(batch)
    found = nn.ModuleDict({"net": method.net, "fast": method.fast}).state_dict()
    for name, value in copied.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert difference(method.projector.state_dict(), projector) is None


def test_the_divergence_is_the_sum_over_known_images_and_the_mean_over_classes():
    rng = torch.Generator().manual_seed(0)
    logits, stored = (3 * torch.randn(6, 4, generator=rng) for _ in range(2))
    known = torch.tensor([True, False, True, True, False, True])
    expected = 0.0
    for b in range(6):
        q = [math.exp(float(v) / 2) for v in stored[b]]
        p = [math.exp(float(v) / 2) for v in logits[b]]
        for c in range(4):
            share, now = q[c] / sum(q), p[c] / sum(p)
            expected += float(known[b]) * share * math.log(share / now) / 4
    assert float(summed_divergence(logits, stored, known, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_with_all_images_known_the_divergence_is_the_elementwise_mean_times_the_images():
    rng = torch.Generator().manual_seed(0)
    logits, stored = (torch.randn(6, 4, generator=rng) for _ in range(2))
    found = summed_divergence(logits, stored, torch.ones(6, dtype=torch.bool), 2.0)
    mean = nn.KLDivLoss(reduction="none")((logits / 2).log_softmax(1), (stored / 2).softmax(1))
    torch.testing.assert_close(found, mean.mean() * 6)


def test_replayed_logits_are_those_at_the_tasks_begin():
    run = made(1)[0]
    method = run.method
    for batch in run._batches(run.scenario.tasks[1]):
        method.observe(batch)
    run.method.begin_task(view(run, 2))
    held = {name: column.clone() for name, column in method.buffer.everything().items()}
    assert held["known"].all()
    torch.testing.assert_close(held["logits"], method.predict(held["x"]))
    for batch in list(run._batches(run.scenario.tasks[2]))[:3]:
        method.observe(batch)
    later = method.buffer.everything()
    stayed = later["known"]
    assert 0 < int(stayed.sum()) < len(stayed)
    assert torch.equal(later["logits"][stayed], held["logits"][stayed])
    assert not torch.allclose(later["logits"][stayed], method.predict(later["x"][stayed]))
    assert not later["logits"][~stayed].any()
    assert (later["y"][~stayed] >= 4).all()


def test_the_terms_of_a_later_task_are_the_stream_the_stored_labels_and_the_stored_logits():
    run, batch = made(1, reg=7.0, temperature=3.0)
    method = run.method
    method.observe(batch)  # so that some stored images have no logits yet
    streams = copy.deepcopy(run.random.state_dict())
    found = {name: float(term.detach()) for name, term in method.loss(batch).items()}
    run.random.load_state_dict(streams)
    old = method.buffer.sample(16, run.random("replay"))

    def log_p(x):
        logits = method.head(naive_masked(method, method.ctx.normalize(x))).detach()
        return logits, logits.log_softmax(1)

    stream = -log_p(batch.x)[1][range(len(batch.y)), batch.y].mean()
    logits, log_now = log_p(old["x"])
    then, now = old["logits"] / 3, logits / 3
    each = (then.softmax(1) * (then.log_softmax(1) - now.log_softmax(1))).sum(1)
    assert 0 < int(old["known"].sum()) < 16
    expected = {
        "stream": float(stream),
        "replay": float(-log_now[range(16), old["y"]].mean()),
        "divergence": 7 * float(each[old["known"]].sum()) / 10,
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_memory_is_the_buffer_with_its_logits_and_the_networks_beside_the_backbone():
    held = made(1)[0].method.memory()
    image = 64 + 8 + 4 * 10 + 1  # pixels, label, logits, whether there are any
    fast = 4 * (9 * 4 + 4 + 9 * 4 * 8 + 8 + 4 * (4 + 8)) + 2 * 8
    projector = 4 * (2 * 8 * 256 + 4 * 256) + 8
    assert held == {"exemplars": 40 * image, "extra parameters": fast + projector}


def planned(widths, side):
    net = cnn.CNN(cnn.Config(widths), (1, side, side))
    return Planned(Training(), SimCLR, net, False, (1, side, side), 10, (2,) * 5)


def test_images_too_small_for_the_pooling_behind_the_stem_are_refused_and_what_to_do_said():
    dualnet.DualNet.check(dualnet.Config(), planned((4, 8, 16), 8))
    with pytest.raises(ValueError, match="try slow_pool: false"):
        dualnet.DualNet.check(dualnet.Config(), planned((4, 8, 16, 32), 8))
    dualnet.DualNet.check(dualnet.Config(slow_pool=False), planned((4, 8, 16, 32), 8))


def test_without_pooling_behind_the_stem_the_first_fast_block_keeps_the_size():
    run, batch = made(0, slow_pool=False)
    assert [type(block[3]) for block in run.method.fast.blocks] == [nn.Identity, nn.MaxPool2d]
    assert run.method.observe(batch)["stream"].isfinite()

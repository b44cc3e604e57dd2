"""The losses of SCALE and Osiris-R against versions written pair by pair."""

import math

import pytest
import torch
from torch.nn import functional as F

from methods.self_supervised.osiris_r import cross
from methods.self_supervised.scale import (
    contrastive,
    pseudo_positives,
    similarity_distillation,
)


def rows(count, dim=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=rng, dtype=torch.float64)


def unit(count, dim=5, seed=0):
    return F.normalize(rows(count, dim, seed), dim=1)


def naive_cross(now, past, temperature):
    """Osiris, anchor by anchor."""

    def direction(anchors, negatives):
        losses = []
        others = [y / y.norm() for view in negatives for y in view]
        for own, twin in (anchors, anchors[::-1]):
            for z, positive in zip(own, twin, strict=True):
                z, positive = z / z.norm(), positive / positive.norm()
                near = torch.exp(z @ positive / temperature)
                far = sum(torch.exp(z @ y / temperature) for y in others)
                losses.append(-torch.log(near / (near + far)))
        return sum(losses) / len(losses)

    return (direction(now, past) + direction(past, now)) / 2


@pytest.mark.parametrize(("new", "old"), [(2, 5), (4, 4), (1, 3)])
def test_osiris_tells_stream_and_memory_apart_as_written(new, old):
    now = (rows(new, seed=1).requires_grad_(), rows(new, seed=2).requires_grad_())
    past = (rows(old, seed=3).requires_grad_(), rows(old, seed=4).requires_grad_())
    fast, slow = cross(now, past, 0.1), naive_cross(now, past, 0.1)
    torch.testing.assert_close(fast, slow)
    ours, theirs = (torch.autograd.grad(loss, (*now, *past)) for loss in (fast, slow))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_osiris_is_content_when_views_agree_and_memory_is_far():
    now = (torch.tensor([[1.0, 0.0]]),) * 2
    far = (torch.tensor([[-1.0, 0.0]]),) * 2
    assert cross(now, far, 0.1).item() < 1e-6
    assert cross(now, now, 0.1).item() == pytest.approx(math.log(3))


def naive_pseudo_positives(views, temperature, threshold):
    count = len(views[0])
    alike = torch.zeros(count, count, dtype=torch.float64)
    for one in views:
        for other in views:
            s = torch.zeros(count, count, dtype=torch.float64)
            for a in range(count):
                for b in range(count):
                    s[a, b] = -(2 - 2 * float(one[a] @ other[b])) / temperature
                    s[a, b] -= 1000.0 * (a == b)
            for a in range(count):
                for b in range(count):
                    row = sum(torch.exp(s[a, k] - s[a].max()) for k in range(count))
                    column = sum(torch.exp(s[k, b] - s[:, b].max()) for k in range(count))
                    share = torch.exp(s[a, b] - s[a].max()) / row / 2
                    alike[a, b] += (share + torch.exp(s[a, b] - s[:, b].max()) / column / 2) / 4
    pairs = [alike[a, b].item() for a in range(count) for b in range(count) if a != b]
    mean = sum(pairs) / len(pairs)
    limit = mean + threshold * (max(pairs) - mean)
    return torch.tensor(
        [[a == b or alike[a, b].item() > limit for b in range(count)] for a in range(count)]
    )


@pytest.mark.parametrize("threshold", [0.1, 0.3])
@pytest.mark.parametrize("seed", [0, 7])
def test_scale_takes_those_pairs_for_one_class_that_the_formula_does(seed, threshold):
    views = [unit(6, seed=seed), unit(6, seed=seed + 1)]
    found = pseudo_positives(views, 0.1, threshold)
    assert torch.equal(found, naive_pseudo_positives(views, 0.1, threshold))
    assert 6 < int(found.sum()) < 36  # neither all nor none but the diagonal


def test_scale_pairs_the_images_of_two_clusters():
    angles = torch.tensor([0.0, 0.05, 1.5, 1.55], dtype=torch.float64)
    z = torch.stack([angles.cos(), angles.sin()], 1)
    found = pseudo_positives([z, z], 0.1, 0.1)
    block = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(found, torch.block_diag(block, block).bool())


def naive_contrastive(z, positive, stream, temperature):
    count, batch = len(z), len(positive)
    losses = []
    for i in [*range(stream), *range(batch, batch + stream)]:
        others = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(count) if k != i)
        mates = [k for k in range(count) if k != i and positive[i % batch, k % batch]]
        total = sum(torch.log(torch.exp(z[i] @ z[k] / temperature) / others) for k in mates)
        losses.append(-(temperature / 0.07) * total / len(mates))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("stream", [2, 5])
def test_scale_contrasts_as_written(stream):
    z = unit(10).requires_grad_()
    positive = torch.eye(5, dtype=torch.bool)
    positive[0, 1] = positive[1, 0] = True
    fast = contrastive(z, positive, stream, 0.1)
    slow = naive_contrastive(z, positive, stream, 0.1)
    torch.testing.assert_close(fast, slow)
    ours, theirs = (torch.autograd.grad(loss, z)[0] for loss in (fast, slow))
    torch.testing.assert_close(ours, theirs)


def naive_distillation(now, before, temperature, past_temperature):
    total = 0.0
    for i in range(len(now)):
        others = [k for k in range(len(now)) if k != i]
        target = torch.softmax(
            torch.stack([before[i] @ before[k] for k in others]) / past_temperature, 0
        )
        current = torch.softmax(torch.stack([now[i] @ now[k] for k in others]) / temperature, 0)
        total = total - (target * current.log()).sum()
    return total / len(now)


def test_scale_distils_similarities_as_written():
    now, before = unit(6, seed=1).requires_grad_(), unit(6, seed=2)
    fast = similarity_distillation(now, before, 0.1, 0.01)
    slow = naive_distillation(now, before, 0.1, 0.01)
    torch.testing.assert_close(fast, slow)
    ours, theirs = (torch.autograd.grad(loss, now)[0] for loss in (fast, slow))
    assert ours.isfinite().all()
    torch.testing.assert_close(ours, theirs)

"""GSS's scores against one gradient at a time, and the odds of who stays in the buffer."""

import copy

import pytest
import torch
from tiny import difference, tiny_run
from torch import nn
from torch.nn import functional as F

from methods.parts.buffers import Buffer
from methods.parts.gradient_scores import FullComparison, GreedySelection, HeadComparison


def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten())
    net = nn.Sequential(body, nn.Linear(27, 4))
    net(torch.randn(16, 1, 5, 5))  # running statistics of its own
    return net.eval()


def images(count, seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (count,), generator=rng)
    return torch.randn(count, 1, 5, 5, generator=rng), y


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng():
        yield


def plain_gradient(net, parameters, x, y):
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), parameters)
    return torch.cat([g.flatten() for g in grads])


def plain_score(net, parameters, x, y, references):
    """The score of a batch: the highest cosine with a reference, one by one, plus 1."""
    own = plain_gradient(net, parameters, x, y)
    cosines = []
    for image, label in zip(*references, strict=True):
        other = plain_gradient(net, parameters, image[None], label[None])
        cosines.append(F.cosine_similarity(own, other, dim=0))
    return max(cosines) + 1


def comparison_of(scope, net, references):
    if scope == "head":
        return HeadComparison(net[0], net[1], *references), [*net[1].parameters()]
    return FullComparison(net, *references, chunk=3), [*net.parameters()]


@pytest.mark.parametrize("scope", ["all", "head"])
def test_the_score_of_each_image_is_that_of_its_own_gradient(scope):
    net, references, (x, y) = network(), images(7, 1), images(5, 2)
    comparison, parameters = comparison_of(scope, net, references)
    plain = [
        plain_score(net, parameters, image[None], label[None], references)
        for image, label in zip(x, y, strict=True)
    ]
    torch.testing.assert_close(comparison.samples(x, y), torch.stack(plain))


@pytest.mark.parametrize("scope", ["all", "head"])
def test_the_score_of_a_batch_is_that_of_the_gradient_of_its_mean_loss(scope):
    net, references, batch = network(), images(7, 1), images(5, 2)
    comparison, parameters = comparison_of(scope, net, references)
    plain = plain_score(net, parameters, *batch, references)
    torch.testing.assert_close(comparison.batch(*batch), plain)


@pytest.mark.parametrize("scope", ["all", "head"])
def test_a_reference_itself_has_the_highest_score(scope):
    net, references = network(), images(4, 1)
    comparison, _ = comparison_of(scope, net, references)
    torch.testing.assert_close(comparison.samples(*references), torch.full((4,), 2.0))


def test_the_same_image_under_two_labels_has_opposite_gradients():
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).eval()
    x = images(1, 0)[0]
    comparison = FullComparison(net, x, torch.tensor([0]), chunk=1)
    torch.testing.assert_close(comparison.samples(x, torch.tensor([1])), torch.zeros(1))


def test_comparing_leaves_the_network_and_its_gradients_alone():
    net, references, batch = network(), images(7, 1), images(5, 2)
    before = copy.deepcopy(net.state_dict())
    for scope in ("all", "head"):
        comparison, _ = comparison_of(scope, net, references)
        comparison.batch(*batch)
        comparison.samples(*batch)
    assert difference(net.state_dict(), before) is None
    assert all(parameter.grad is None for parameter in net.parameters())


def full(scores):
    selection = GreedySelection()
    selection.scores = list(scores)
    return selection


def test_slots_are_drawn_and_taken_with_the_probabilities_of_the_scores():
    scores, own, rng = (0.1, 0.4, 0.5), 0.3, torch.Generator().manual_seed(0)
    trials, counts = 20_000, [0, 0, 0, 0]
    for _ in range(trials):
        selection = full(scores)
        selection.judge(0.9, [own])
        (slot,) = selection(3, 1, 3, rng).tolist()
        counts[slot] += 1
        kept = [own if slot == i else c for i, c in enumerate(scores)]
        assert selection.scores == kept
    for count, c in zip(counts, scores, strict=False):
        expected = c / sum(scores) * c / (c + own)
        assert abs(count / trials - expected) < 4 * (expected / trials) ** 0.5
    assert sum(counts) == trials
    assert counts[-1] > 0


def test_a_full_buffer_takes_nothing_from_a_batch_like_those_it_holds():
    selection = full([2.0, 2.0])
    selection.judge(1.0, [])
    assert selection(2, 5, 2, torch.Generator()).tolist() == [-1] * 5
    assert selection.scores == [2.0, 2.0]


def test_images_are_decided_about_one_after_the_other():
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        selection = full([2.0])
        selection.judge(0.5, [0.0, 2.0])
        # The first gets the slot almost surely, and the second then almost never.
        assert selection(1, 2, 1, rng).tolist() == [0, -1]


def test_a_buffer_that_a_batch_fills_takes_the_first_rows_at_the_score_of_the_batch():
    selection = full([0.2])
    selection.judge(0.7, [1e-9])
    slots = selection(1, 3, 3, torch.Generator().manual_seed(0)).tolist()
    assert slots[:2] == [1, 2]
    assert slots[2] in (0, 1, 2)
    kept = [score for slot, score in enumerate([0.2, 0.7, 0.7]) if slot != slots[2]]
    assert [c for slot, c in enumerate(selection.scores) if slot != slots[2]] == kept


def test_opposite_gradients_everywhere_leave_the_odds_defined():
    selection = full([])
    selection.judge(0.0, [0.0, 0.0])
    assert len(selection(0, 4, 2, torch.Generator().manual_seed(0))) == 4
    assert min(selection.scores) > 0


def test_a_score_is_kept_for_every_image_in_the_buffer():
    run = tiny_run("gss")
    for batch in list(run._batches(run.scenario.tasks[0])):
        run.method.observe(batch)
        assert len(run.method.selection.scores) == len(run.method.buffer)
    assert run.method.memory() == {"exemplars": 40 * (64 + 8 + 8)}


def test_a_first_batch_may_be_larger_than_the_buffer():
    run = tiny_run("gss", buffer_size=8)
    batch = next(iter(run._batches(run.scenario.tasks[0])))
    run.method.observe(batch)
    assert run.method.selection.scores == [0.1] * 8
    kept = run.method.buffer.everything()["x"]
    assert not torch.equal(kept, batch.x[:8])
    assert all((batch.x == image).flatten(1).all(1).any() for image in kept)


def replayed_gss_rows(method, count):
    """The rows of the buffer that the next comparison will draw."""
    rng = torch.Generator()
    rng.set_state(method.ctx.random("gss").get_state())
    return torch.randperm(len(method.buffer), generator=rng)[:count]


def test_a_batch_is_scored_by_the_network_it_has_trained_on_images_as_they_are():
    run = tiny_run("gss", buffer_size=200, augmentation="simclr")
    method = run.method
    first, second, *_ = run._batches(run.scenario.tasks[0])
    method.observe(first)
    assert method.selection.scores == [0.1] * len(first.x)
    old = method.buffer.take(replayed_gss_rows(method, 16))
    method.observe(second)
    net = copy.deepcopy(method.net).eval()
    references = (method.ctx.normalize(old["x"]), old["y"])
    x = method.ctx.normalize(second.x)
    expected = plain_score(net, [*net.parameters()], x, second.y, references)
    assert method.selection.scores[len(first.x) :] == pytest.approx(
        [expected.item()] * len(second.x), abs=1e-4
    )


@pytest.mark.parametrize("scope", ["all", "head"])
def test_images_of_a_batch_that_is_new_to_a_full_buffer_are_scored_each(scope):
    run = tiny_run("gss")
    method = run.method
    object.__setattr__(method.config, "grad_scope", scope)
    stream = [b for task in run.scenario.tasks for b in run._batches(task)]
    method.net.eval()
    for batch in stream[:2]:
        method.remember(batch)
    for batch in stream[2:]:
        old = method.buffer.take(replayed_gss_rows(method, 16))
        together, each = method._scores(batch)
        if together < 1:
            break
    assert together < 1
    net = copy.deepcopy(method.net).eval()
    parameters = [*(net[1] if scope == "head" else net).parameters()]
    references = (method.ctx.normalize(old["x"]), old["y"])
    x = method.ctx.normalize(batch.x)
    plain = [
        plain_score(net, parameters, image[None], label[None], references).item()
        for image, label in zip(x, batch.y, strict=True)
    ]
    assert each == pytest.approx(plain, abs=1e-4)


def test_remembering_leaves_statistics_modes_and_gradients_alone():
    run = tiny_run("gss")
    method = run.method
    first, second, *_ = run._batches(run.scenario.tasks[0])
    method.observe(first)
    before = copy.deepcopy(method.net.state_dict())
    gradients = [p.grad.clone() for p in method.net.parameters()]
    method.remember(second)
    assert difference(method.net.state_dict(), before) is None
    assert all(
        torch.equal(p.grad, g) for p, g in zip(method.net.parameters(), gradients, strict=True)
    )
    assert all(module.training for module in method.net.modules())


def test_scores_follow_their_images_through_a_state():
    rng = torch.Generator().manual_seed(0)
    selection = GreedySelection()
    buffer = Buffer(4, selection, rng, torch.device("cpu"))
    for value, score in enumerate((0.25, 0.5, 0.75)):
        selection.judge(score, [])
        buffer.add(x=torch.full((1, 1), value), y=torch.tensor([value]))
    again = GreedySelection()
    again.load_state_dict(copy.deepcopy(selection.state_dict()))
    assert again.scores == selection.scores == [0.25, 0.5, 0.75]
    assert selection.nbytes == 24

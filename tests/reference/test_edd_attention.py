"""Attention to slots in chunks against attention held at once, and its comparison with a target."""

import math

import pytest
import torch
from torch import nn

from methods.parts.slot_attention import SCORES, attend, attention
from methods.parts.slot_memory import SlotMemories, SlotMemory, new_slots
from methods.parts.slot_network import SlotNetwork, query_dims

IMAGES, POSITIONS, DIM, SLOTS = 5, 6, 4, 7
every_softmax = pytest.mark.parametrize("over", ["slots", "positions"])
ONE_CHUNK, BY_TWO, BY_ONE = SCORES, 2 * POSITIONS * SLOTS, 1


def draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def inputs():
    """Queries, keys, values that need gradients, and another network's queries and keys."""
    queries, other = draw(IMAGES, POSITIONS, DIM), draw(IMAGES, POSITIONS, DIM, seed=3)
    keys, values = draw(SLOTS, DIM, seed=1), draw(SLOTS, DIM, seed=2)
    ours = [t.requires_grad_() for t in (queries, keys, values)]
    return ours, (other, draw(SLOTS, DIM, seed=4))


def naive_attention(queries, keys, over):
    """One score after the other."""
    weights = torch.zeros(len(queries), queries.shape[1], len(keys), dtype=queries.dtype)
    for image, rows in enumerate(queries.detach()):
        for position, query in enumerate(rows):
            for slot, key in enumerate(keys.detach()):
                cosine = (query @ key) / (query.norm() * key.norm())
                weights[image, position, slot] = cosine.exp()
    return weights / weights.sum(2 if over == "slots" else 1, keepdim=True)


def plain(queries, keys, values, target, over):
    """All attention at once, differentiated by autograd."""

    def weights(q, k):
        q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
        return (q @ k.T).softmax(2 if over == "slots" else 1)

    ours, other = weights(queries, keys), weights(*target)
    flat = ours.flatten(1), other.flatten(1)
    cosine = (flat[0] * flat[1]).sum(1) / (flat[0].norm(dim=1) * flat[1].norm(dim=1))
    return ours @ values, 1 - cosine


@every_softmax
def test_attention_is_the_softmax_of_cosines(over):
    (queries, keys, values), _ = inputs()
    weights = naive_attention(queries, keys, over)
    torch.testing.assert_close(attention(queries, keys, over=over).detach(), weights)
    read, distance = attend(queries, keys, values, over=over)
    assert distance is None
    torch.testing.assert_close(read.detach(), weights @ values.detach())


def test_weights_of_every_query_sum_to_1_over_the_slots():
    (queries, keys, _), _ = inputs()
    total = attention(queries, keys).sum(2)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_weights_of_every_slot_sum_to_1_over_the_positions_of_an_image():
    (queries, keys, _), _ = inputs()
    total = attention(queries, keys, over="positions").sum(1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_weights_are_nearly_uniform_with_a_thousand_random_slots():
    keys, _ = new_slots(1000, 64)
    weights = attention(torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0)), keys)
    assert 1.1 < 1000 * weights.max() < 2
    entropy = -(weights * weights.log()).sum(2) / math.log(1000)
    assert entropy.min() > 0.99


@every_softmax
@pytest.mark.parametrize("scores", [ONE_CHUNK, BY_TWO, BY_ONE])
def test_chunks_give_the_outputs_and_gradients_of_attention_at_once(over, scores):
    ours, target = inputs()
    found = attend(*ours, over=over, target=target, scores=scores)
    wanted = plain(*ours, target, over)
    torch.testing.assert_close(found, wanted)
    up = draw(IMAGES, POSITIONS, DIM, seed=5), draw(IMAGES, seed=6)
    for have, want in zip(
        torch.autograd.grad(found, ours, up), torch.autograd.grad(wanted, ours, up), strict=True
    ):
        torch.testing.assert_close(have, want)


@pytest.mark.parametrize(("scores", "kept"), [(BY_TWO, False), (ONE_CHUNK, True)])
def test_attention_is_kept_for_the_backward_pass_only_if_it_fits_at_once(scores, kept):
    ours, target = inputs()
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attend(*ours, target=target, scores=scores)
    assert (max(sizes) == IMAGES * POSITIONS * SLOTS) == kept


@every_softmax
@pytest.mark.parametrize("scores", [ONE_CHUNK, BY_TWO])
def test_gradients_of_reading_alone_are_those_of_differences(over, scores):
    ours, _ = inputs()
    assert torch.autograd.gradcheck(
        lambda *t: attend(*t, over=over, scores=scores)[0], ours, fast_mode=True
    )


@every_softmax
def test_the_distance_of_identical_attention_is_exactly_0_and_has_no_gradient(over):
    ours, _ = inputs()
    _, distance = attend(*ours, over=over, target=(ours[0].detach(), ours[1].detach()))
    assert torch.equal(distance, torch.zeros_like(distance))
    for gradient in torch.autograd.grad(distance.sum(), ours[:2]):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_small_distances_survive_single_precision():
    rng = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 600, 16, generator=rng), torch.randn(400, 16, generator=rng)
    moved = queries + 0.01 * torch.randn(2, 600, 16, generator=rng)
    _, found = attend(queries, keys, keys, target=(moved, keys))
    exact = [x.double() for x in (queries, keys, keys)]
    wanted = plain(*exact, (moved.double(), keys.double()), "slots")[1]
    assert wanted.max() < 1e-5
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=0)


def test_a_query_of_zeros_reads_the_mean_of_the_values_and_has_no_gradient():
    (_, keys, values), _ = inputs()
    queries = torch.zeros(1, 1, DIM, dtype=torch.float64, requires_grad=True)
    read, _ = attend(queries, keys, values)
    torch.testing.assert_close(read[0, 0], values.mean(0))
    read.sum().backward()
    assert torch.equal(queries.grad, torch.zeros_like(queries))


@every_softmax
def test_the_order_of_the_slots_in_both_networks_changes_nothing(over):
    ours, (other, other_keys) = inputs()
    order = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(1))
    mixed = [ours[0], ours[1][order], ours[2][order]]
    found = attend(*mixed, over=over, target=(other, other_keys[order]))
    torch.testing.assert_close(found, attend(*ours, over=over, target=(other, other_keys)))
    one_mixed = attend(*mixed, over=over, target=(other, other_keys))
    assert not torch.allclose(one_mixed[1], found[1])


class Halves:
    """A backbone of two stages that pass maps on, the second at half the resolution."""

    def __init__(self):
        self.backbone = nn.Module()
        self.backbone.stem = nn.Identity()
        self.backbone.stages = nn.ModuleList([nn.Identity(), nn.MaxPool2d(2)])
        self.backbone.stage_channels = (DIM, DIM)
        self.backbone.pool = nn.Flatten()


@pytest.mark.parametrize(("query", "dims"), [("position", (DIM, DIM)), ("channel", (16, 4))])
def test_memories_have_the_dimension_of_their_queries(query, dims):
    assert query_dims(Halves().backbone, torch.zeros(1, DIM, 4, 4), 2, query) == dims


def test_every_position_reads_the_memory_by_its_channels():
    backbone, x = Halves().backbone, draw(2, DIM, 4, 4).float()
    net = SlotNetwork(backbone, nn.Identity(), SlotMemories((DIM,), SLOTS))
    memory = net.memories.all()[0]
    said = torch.empty_like(x)
    for row in range(4):
        for column in range(4):
            one = x[:, :, row, column]
            weights = naive_attention(one[:, None], memory.all_keys(), "slots")[:, 0]
            said[:, :, row, column] = weights @ memory.all_values().detach()
    torch.testing.assert_close(net(x).features.detach(), nn.MaxPool2d(2)(said).flatten(1))


def test_every_channel_reads_the_memory_by_its_positions():
    backbone, x = Halves().backbone, draw(2, DIM, 4, 4).float()
    net = SlotNetwork(backbone, nn.Identity(), SlotMemories((16,), SLOTS), query="channel")
    memory = net.memories.all()[0]
    weights = naive_attention(x.flatten(2), memory.all_keys(), "slots")
    said = (weights @ memory.all_values().detach()).view(x.shape)
    torch.testing.assert_close(net(x).features.detach(), nn.MaxPool2d(2)(said).flatten(1))


def test_a_map_can_be_passed_on_beside_the_memory_or_alone():
    x, memories = draw(2, DIM, 4, 4).float(), SlotMemories((DIM,), SLOTS)
    nets = {
        read: SlotNetwork(Halves().backbone, nn.Identity(), memories, read=read)
        for read in ("memory", "augmented", "resnet")
    }
    for net in nets.values():
        net.backbone.stages[1] = nn.Identity()
    features = {read: net(x).features for read, net in nets.items()}
    assert torch.equal(features["resnet"], x.flatten(1))
    torch.testing.assert_close(features["augmented"], features["memory"] + features["resnet"])


@every_softmax
@pytest.mark.parametrize("scores", [ONE_CHUNK, BY_TWO, BY_ONE])
def test_a_target_with_fewer_slots_is_compared_over_those_that_it_has(over, scores):
    (queries, keys, values), (other, other_keys) = inputs()
    target = other, other_keys[:4]

    def weights(q, k):
        q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
        return (q @ k.T).softmax(2 if over == "slots" else 1)

    ours, theirs = weights(queries, keys), weights(*target)
    a, b = ours[..., :4].flatten(1), theirs.flatten(1)
    wanted = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    read, distance = attend(queries, keys, values, over=over, target=target, scores=scores)
    torch.testing.assert_close(distance, wanted)
    factors = draw(*read.shape, seed=9)
    found = torch.autograd.grad((read * factors).sum() + distance.sum(), (queries, keys, values))
    naive = (ours @ values * factors).sum() + wanted.sum()
    for one, two in zip(found, torch.autograd.grad(naive, (queries, keys, values)), strict=True):
        torch.testing.assert_close(one, two)


def test_frozen_slots_are_read_like_the_others():
    memory = SlotMemory(DIM, SLOTS)
    before = memory.all_keys().detach(), memory.all_values().detach()
    memory.freeze(2)
    memory.append(new_slots(2, DIM))
    queries = draw(1, 3, DIM).float()
    added = torch.cat([before[0], memory.keys[-2:]]), torch.cat([before[1], memory.values[-2:]])
    found, _ = attend(queries, memory.all_keys(), memory.all_values())
    torch.testing.assert_close(found, attend(queries, *added)[0])

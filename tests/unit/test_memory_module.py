"""BrainCL's memory: what its networks learn, what is kept of them, what is recalled."""

import copy
import io

import pytest
import torch
from torch.nn import functional as F

from harness.data.sets import digits
from methods.base import Batch
from methods.parts.compression import noisy, padded
from methods.parts.cue_book import CueError, network_digest
from methods.parts.long_term_memory import (
    CompletionNets,
    CueIndex,
    LongTermMemory,
    RecalledBatches,
    TaskMemory,
    recalled,
    recollection,
)
from methods.parts.memory_module import CHUNK, LARGEST, Learning, MemoryModule, Sizes

SIZES = Sizes(channels=6, cue_channels=5, stages=2, support=8)
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def module(channels=1, sizes=SIZES, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MemoryModule(channels, sizes)


def some_images(count, channels=1, size=(8, 8), seed=0):
    x = torch.randint(0, 256, (count, channels, *size), generator=generator(seed))
    return Batch(x.byte(), torch.arange(count) % 3, 100 + torch.arange(count))


def some_digits(count):
    train = digits.load(digits.Config(), None).train
    return Batch(train.x[:count], train.y[:count], torch.arange(count))


def pixels(recalled_images, true):
    """The mean squared error of pixels from 0 to 2.55, number for number."""
    return ((2.55 * recalled_images - 2.55 * true) ** 2).mean()


def learn(made, images, *, epochs, rate_lambda, lr=5e-3, size=32):
    batches = RecalledBatches(images, size, epochs, (), generator(1))
    rates = Learning(lr, 4 * lr, rate_lambda)
    return list(made.learn(batches, rates, pixels, generator(2)))


def memory_of(images):
    """An encoded memory, and the module that made it."""
    made = module()
    return TaskMemory.encode(made, made.completion, images), made


def kept(*memories, half=False):
    """A long-term memory of memories that are encoded again, for networks as they are stored."""
    completions = CompletionNets(lambda: SIZES.completion(1), half=half)
    long_term = LongTermMemory(completions)
    for images, made in memories:
        long_term.add(TaskMemory.encode(made, completions.stored(made.completion), images))
    return long_term, completions


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Learning


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_losses_are_the_error_of_the_true_pixels_and_the_bits_a_true_pixel(size):
    made, x = module(3), some_images(4, 3, size).x
    lost, rate = made.losses(x, pixels, 0.3, generator(5))
    true = x.float() / 255
    z = made.separation((padded(true, 4) - 0.5) / 0.25)
    cue = noisy(z, generator(5))
    back = 0.5 + 0.25 * made.completion(cue)[:, :, : size[0], : size[1]]
    torch.testing.assert_close(lost, pixels(back, true))
    bits = sum(made.entropy.bits(one[None]).item() for one in cue)
    assert rate.item() == pytest.approx(bits / (4 * size[0] * size[1]), rel=1e-5)


def test_each_network_has_the_gradient_of_its_own_loss():
    x, rate_lambda = some_images(4).x, 0.05
    made = module()
    sum(made.losses(x, pixels, rate_lambda, generator(5))).backward()
    plain = module()
    lost, rate = plain.losses(x, pixels, 1.0, generator(5))
    of_rate = torch.autograd.grad(rate, [*plain.separation.parameters()], retain_graph=True)
    of_entropy = torch.autograd.grad(rate, [*plain.entropy.parameters()], retain_graph=True)
    lost.backward()
    for mine, other, rated in zip(
        made.separation.parameters(), plain.separation.parameters(), of_rate, strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad + rate_lambda * rated)
    for mine, other in zip(
        made.completion.parameters(), plain.completion.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad)
    for mine, gradient in zip(made.entropy.parameters(), of_entropy, strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(mine.grad, gradient)


def test_the_two_learning_rates_are_those_of_networks_and_entropy_model():
    images, before = some_images(8), module()
    after = copy.deepcopy(before)
    for _ in after.learn([images], Learning(1e-3, 1e-2, 1.0), pixels, generator()):
        pass
    for name, value in before.named_parameters():
        moved = (after.get_parameter(name) - value).abs().max().item()  # Adam's first step
        assert moved == pytest.approx(1e-2 if "entropy" in name else 1e-3, rel=1e-2), name


def test_what_is_yielded_is_the_distortion_and_the_weighted_rate():
    images = some_images(8)
    first = learn(module(), images, epochs=1, rate_lambda=0.3)[0]
    assert first.keys() == {"distortion", "rate"}
    assert not any(term.requires_grad for term in first.values())
    noise = generator(int(torch.randint(2**62, (), generator=generator(2))))
    order = torch.randperm(8, generator=generator(1))
    lost, rate = module().losses(images.x[order], pixels, 0.3, noise)
    assert torch.equal(first["distortion"], lost)
    assert torch.equal(first["rate"], 0.3 * rate)


def test_learning_draws_from_its_generator_alone_and_can_be_repeated():
    before = torch.get_rng_state()
    first, second = module(), module()
    for made in (first, second):
        learn(made, some_images(40), epochs=2, rate_lambda=1e-2)
    assert network_digest(first) == network_digest(second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture(scope="module")
def trained():
    """Modules trained on 300 digits by different weights of the rate, with what they recall."""
    images, found = some_digits(300), {}
    for rate_lambda in (1e-3, 3e-2, 3e-1):
        made = module(sizes=Sizes(16, 12, 2, 16))
        learn(made, images, epochs=20, rate_lambda=rate_lambda, lr=1e-2)
        found[rate_lambda] = made, TaskMemory.encode(made, made.completion, images)
    return images, found


def squared_error(images, memory):
    return (recollection([memory]).x.float() - images.x.float()).square().mean().item()


def test_the_rate_falls_and_the_distortion_grows_with_the_weight_of_the_rate(trained):
    images, found = trained
    bits = [memory.book.bits().double().mean().item() for _, memory in found.values()]
    errors = [squared_error(images, memory) for _, memory in found.values()]
    assert bits[0] > 1.3 * bits[1]
    assert bits[1] > 1.3 * bits[2]
    assert errors[0] < errors[1] < errors[2]


def test_recalled_images_resemble_those_that_were_seen(trained):
    images, found = trained
    mean_image = images.x.float().mean(0)
    by_the_mean = (images.x.float() - mean_image).square().mean().item()
    assert squared_error(images, found[1e-3][1]) < 0.1 * by_the_mean
    assert squared_error(images, found[3e-1][1]) < 0.5 * by_the_mean


def test_the_bits_stored_are_those_that_the_entropy_model_expects(trained):
    _, found = trained
    for made, memory in found.values():
        expected = made.entropy.bits(torch.from_numpy(memory.book.decode()).float()).detach()
        stored = memory.book.bits()
        assert (stored >= 0.97 * expected - 32).all()
        assert (stored <= 1.03 * expected + 64).all()  # whole words, one of them for the end


# Cues and what they recall


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_cues_are_the_rounded_outputs_of_the_separation_network(size):
    made, images = module(3), some_images(5, 3, size)
    found = made.cues(images.x)
    expected = made.separation(4 * padded(images.x / 255, 4) - 2).round()
    assert found.dtype == torch.int32
    assert found.shape == (5, 5, 2, -(-size[1] // 4))
    assert torch.equal(found.float(), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e12])
def test_cues_that_no_table_could_hold_are_noticed(value):
    made, images = module(), some_images(CHUNK + 1)
    with torch.no_grad():
        made.separation[-1].bias[2] = value
    with pytest.raises(OverflowError, match="their networks diverged"):
        made.cues(images.x)


def test_the_largest_cues_can_be_stored():
    made, images = module(), some_images(4)
    with torch.no_grad():
        made.separation[-1].weight.zero_()
        made.separation[-1].bias[:2] = torch.tensor([LARGEST, -LARGEST])
    memory = TaskMemory.encode(made, made.completion, images)
    assert memory.book.decode()[:, :2, 0, 0].tolist() == [[LARGEST, -LARGEST]] * 4


def test_recalled_images_are_the_completion_of_the_stored_integers():
    images = some_images(9, size=(7, 10))
    memory, made = memory_of(images)
    cues = torch.from_numpy(memory.book.decode())
    assert torch.equal(cues, made.cues(images.x))
    wanted = made.completion(cues.float())[:, :, :7, :10]
    wanted = (255 * (wanted / 4 + 0.5)).round().clamp(0, 255).byte()
    found = recollection([memory])
    assert found.x.dtype == torch.uint8
    assert torch.equal(found.x, wanted)
    assert torch.equal(found.labels(), images.labels())
    assert torch.equal(found.index, images.index)


def test_pixels_beyond_black_and_white_are_cut_off():
    net = torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.zero_()
    cues = torch.tensor([-100, -2, 0, 1, 2, 100], dtype=torch.int32).view(1, 1, 1, 6)
    assert recalled(net, cues, (1, 6)).flatten().tolist() == [0, 0, 128, 191, 255, 255]


def test_an_image_is_recalled_alike_whatever_is_recalled_with_it():
    images = some_images(2 * CHUNK + 5)
    memory, _ = memory_of(images)
    everything = recollection([memory]).x
    for count in (1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 10_000):
        assert torch.equal(torch.cat([*memory.images(count)]), everything[:count])


def test_several_memories_are_recalled_one_behind_the_other():
    first, _ = memory_of(some_images(4))
    second, _ = memory_of(some_images(3, seed=9))
    both = recollection([first, second])
    assert torch.equal(both.x, torch.cat([recollection([m]).x for m in (first, second)]))
    assert both.labels().tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert both.index.tolist() == [100, 101, 102, 103, 100, 101, 102]


def test_only_the_cues_that_are_kept_are_recalled():
    memory, _ = memory_of(some_images(6))
    everything = recollection([memory]).x
    part = recollection([memory.keep(torch.tensor([4, 1]))])
    assert torch.equal(part.x, everything[[4, 1]])
    assert part.index.tolist() == [104, 101]


def test_nothing_is_recalled_from_nothing():
    memory, _ = memory_of(some_images(3))
    with pytest.raises(ValueError, match="the memories are empty"):
        recollection([memory.keep(torch.empty(0, dtype=torch.int64))])


# What is kept


@pytest.mark.parametrize("half", [False, True])
def test_a_long_term_memory_comes_back_bit_for_bit(half):
    two = (some_images(5), module()), (some_images(4, seed=3), module(seed=1))
    long_term, completions = kept(*two, half=half)
    other, others = kept(half=half)
    others.resize(2, CPU)
    others.load_state_dict(through_a_file(completions.state_dict()))
    other.load_state_dict(through_a_file(long_term.state_dict()))
    ours, theirs = recollection(long_term.tasks()), recollection(other.tasks())
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.index, theirs.index)
    assert [b.to_bytes() for b in long_term.books] == [b.to_bytes() for b in other.books]
    assert not any(p.requires_grad for p in others.parameters())


def test_cues_do_not_come_back_without_the_network_that_completes_them():
    long_term, completions = kept((some_images(5), module()))
    state = long_term.state_dict()
    with torch.no_grad():
        next(completions.parameters()).view(-1)[0] += 1
    with pytest.raises(CueError, match="checkpoint: cues of another network"):
        long_term.load_state_dict(state)


@pytest.mark.parametrize(("half", "width"), [(False, 4), (True, 2)])
def test_bytes_are_those_of_weights_payloads_and_the_rest_of_the_books(half, width):
    long_term, completions = kept((some_images(5), module()), half=half)
    weights = 5 * 6 * 25 + 6 + 6 * 1 * 25 + 1
    assert completions.nbytes == width * weights
    assert long_term.nbytes == long_term.books[0].bits().sum().item() / 8
    assert long_term.nbytes + CueIndex(long_term).nbytes == len(long_term.books[0].to_bytes())


def test_half_precision_hardly_changes_what_is_recalled():
    images, made = some_digits(64), module()
    learn(made, images, epochs=5, rate_lambda=1e-2)
    whole, half = (kept((images, made), half=h)[0] for h in (False, True))
    difference = recollection(whole.tasks()).x.int() - recollection(half.tasks()).x.int()
    assert 0 < difference.abs().max() <= 2


# Batches


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (64, 32, [32, 32]),
        (65, 32, [32, 33]),
        (66, 32, [32, 32, 2]),
        (33, 32, [33]),
        (5, 32, [5]),
        (1, 32, [1]),
    ],
)
def test_an_epoch_has_every_image_once_and_no_single_one_at_its_end(count, size, sizes):
    images = some_images(count, size=(1, 1))
    batches = RecalledBatches(images, size, 2, (1,), generator())
    drawn = list(batches)
    assert [len(b.x) for b in drawn] == 2 * sizes
    assert len(batches) == 2 * len(sizes)
    for epoch in (drawn[: len(sizes)], drawn[len(sizes) :]):
        index = torch.cat([b.index for b in epoch])
        assert torch.equal(index.sort().values, images.index)
    for batch in drawn:
        assert torch.equal(batch.x, images.x[batch.index - 100])
        assert torch.equal(batch.labels(), images.labels()[batch.index - 100])


def test_epochs_are_shuffled_anew_by_the_generator():
    images = some_images(40, size=(1, 1))

    def order(seed):
        batches = RecalledBatches(images, 40, 2, (), generator(seed))
        return [batch.index.tolist() for batch in batches]

    assert order(0) == order(0) != order(1)
    assert order(0)[0] != order(0)[1]


def test_the_true_scale_of_pixels_is_that_of_the_images():
    """A network that completes perfectly has no distortion: both sides have one scale."""
    made = module()
    x = some_images(4).x
    made.separation, made.completion = torch.nn.Identity(), torch.nn.Identity()
    made.entropy = module(sizes=Sizes(1, 1, 1, 8)).entropy
    lost, _ = made.losses(x, F.mse_loss, 0.0, generator())
    assert lost.item() == pytest.approx(0.25**2 / 12, rel=0.15)  # that of the noise alone

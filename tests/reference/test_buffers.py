"""Buffers against naive versions that store one image after the other."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from harness.seeds import generator
from methods.parts.buffers import Buffer, fifo, reservoir

CPU = torch.device("cpu")


def buffer(capacity=10, policy=reservoir, rng=None, device=CPU):
    return Buffer(capacity, policy, rng or generator(0, "buffer"), device)


def rows(first, last):
    """Rows that can be told apart: image, label and features all say the same number."""
    number = torch.arange(first, last)
    x = number.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return {"x": x, "y": number, "z": number[:, None].float() / 2}


def feed(held, total, size):
    for first in range(0, total, size):
        held.add(**rows(first, min(first + size, total)))
    return held


def contents(held):
    return held.state_dict()["columns"]["y"].tolist()


def drawn(held, size, seed=0):
    return held.sample(size, generator(seed, "replay"))


def naive_reservoir(items, capacity, rng):
    """Vitter's Algorithm R, one item at a time."""
    kept = []
    for seen, item in enumerate(items):
        slot = int(torch.rand((), generator=rng, dtype=torch.float64) * (seen + 1))
        if seen < capacity:
            kept.append(item)
        elif slot < capacity:
            kept[slot] = item
    return kept


@pytest.mark.parametrize("size", [1, 7, 16, 100])
def test_a_reservoir_filled_by_batches_is_one_filled_item_by_item(size):
    held = feed(buffer(rng=generator(3, "buffer")), 100, size)
    assert contents(held) == naive_reservoir(range(100), 10, generator(3, "buffer"))


@pytest.mark.parametrize("size", [7, 30])
def test_a_reservoir_keeps_every_item_with_equal_probability(size):
    items, capacity, times = 30, 6, 1000
    rng = generator(0, "buffer")
    kept = np.zeros(items)
    for _ in range(times):
        held = feed(buffer(capacity, rng=rng), items, size)
        kept[contents(held)] += 1
    p = capacity / items
    variance = times * p * (1 - p) * items / (items - 1)  # the number kept is fixed
    statistic = ((kept - times * p) ** 2).sum() / variance
    assert chi2.ppf(0.001, items - 1) < statistic < chi2.ppf(0.999, items - 1)


def test_a_full_reservoir_holds_different_items_that_were_seen():
    found = contents(feed(buffer(), 200, 7))
    assert len(found) == len(set(found)) == 10
    assert set(found) <= set(range(200))


@pytest.mark.parametrize("size", [1, 4, 10, 25])
def test_fifo_holds_the_newest(size):
    held = feed(buffer(policy=fifo), 103, size)
    assert sorted(contents(held)) == list(range(93, 103))


def test_fifo_draws_nothing():
    rng = generator(0, "buffer")
    before = rng.get_state()
    feed(buffer(policy=fifo, rng=rng), 50, 7)
    assert torch.equal(before, rng.get_state())


def test_of_two_rows_for_one_slot_the_later_wins():
    held = buffer(2, lambda *_: torch.tensor([0, 1, 0, -1]))
    held.add(**rows(0, 4))
    assert contents(held) == [2, 1]


@pytest.mark.parametrize("policy", [reservoir, fifo])
def test_columns_stay_together(policy):
    held = feed(buffer(policy=policy), 120, 9)
    for columns in (held.state_dict()["columns"], drawn(held, 6)):
        assert torch.equal(columns["x"][:, 0, 1, 1].long(), columns["y"])
        assert torch.equal(columns["z"][:, 0] * 2, columns["y"].float())


@pytest.mark.parametrize("columns", [{"x"}, {"x", "y", "z", "w"}])
def test_a_batch_with_other_columns_than_the_first_is_refused(columns):
    held = feed(buffer(), 5, 5)
    batch = rows(5, 9)
    with pytest.raises(ValueError, match="columns"):
        held.add(**{name: batch.get(name, batch["y"]) for name in columns})
    assert held.seen == 5


def test_a_sample_has_no_row_twice():
    held = feed(buffer(30), 100, 10)
    for seed in range(50):
        found = drawn(held, 12, seed)["y"].tolist()
        assert len(found) == len(set(found)) == 12
        assert set(found) <= set(contents(held))


def test_a_sample_of_more_than_there_is_is_all_there_is():
    held = feed(buffer(30), 7, 7)
    assert sorted(drawn(held, 100)["y"].tolist()) == list(range(7))


def test_every_row_is_sampled_equally_often():
    held = feed(buffer(20), 20, 20)
    rng, times = generator(0, "replay"), 2000
    found = torch.cat([held.sample(5, rng)["y"] for _ in range(times)]).bincount(minlength=20)
    p = 5 / 20
    variance = times * p * (1 - p) * 20 / 19
    statistic = ((found - times * p) ** 2).sum().item() / variance
    assert chi2.ppf(0.001, 19) < statistic < chi2.ppf(0.999, 19)


def test_sampling_does_not_touch_the_stream_that_chooses_slots():
    rng = generator(0, "buffer")
    held = feed(buffer(rng=rng), 40, 8)
    before = rng.get_state()
    drawn(held, 5)
    assert torch.equal(before, rng.get_state())


def test_a_restored_buffer_goes_on_as_the_first_would_have():
    first, second = buffer(rng=generator(5, "buffer")), buffer(rng=generator(5, "buffer"))
    feed(first, 50, 7)
    second.load_state_dict(first.state_dict())
    second.rng.set_state(first.rng.get_state())
    assert second.seen == 50  # and not 10, which would keep too many of those that follow
    for held in (first, second):
        held.add(**rows(50, 90))
    assert contents(first) == contents(second)
    assert torch.equal(drawn(first, 4)["x"], drawn(second, 4)["x"])


def test_a_half_full_buffer_is_restored_with_room_for_the_rest():
    first, second = feed(buffer(), 4, 4), buffer()
    second.load_state_dict(first.state_dict())
    assert len(second) == 4
    second.add(**rows(4, 10))
    assert contents(second) == list(range(10))


def test_a_saved_state_is_not_changed_by_what_follows():
    held = feed(buffer(policy=fifo), 10, 5)
    state = held.state_dict()
    other = buffer(policy=fifo)
    other.load_state_dict(state)
    for one in (held, other):
        one.add(**rows(10, 16))
    assert state["seen"] == 10
    assert state["columns"]["y"].tolist() == list(range(10))


def test_a_restored_buffer_is_on_its_device_again():
    held = buffer(device=torch.device("meta"))  # stands for a GPU: checkpoints load on the CPU
    held.load_state_dict(feed(buffer(), 12, 4).state_dict())
    assert drawn(held, 3)["x"].device.type == "meta"


def test_bytes_are_those_of_the_rows_filled():
    held = buffer(10)
    assert held.nbytes == 0
    feed(held, 4, 4)
    assert held.nbytes == 4 * (4 + 8 + 4)
    feed(held, 100, 10)
    assert held.nbytes == 10 * (4 + 8 + 4)


def test_images_stay_uint8():
    assert drawn(feed(buffer(), 20, 5), 3)["x"].dtype == torch.uint8


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_buffer_without_room_is_refused(capacity):
    with pytest.raises(ValueError, match="at least 1"):
        buffer(capacity)

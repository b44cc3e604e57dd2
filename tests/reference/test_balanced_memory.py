"""A memory with equal shares, in cases made by hand."""

import pytest
import torch

from harness.seeds import generator
from methods.parts.balanced_memory import BalancedMemory, evenly_of_each


def columns(labels, first=0):
    """Rows that can be told apart."""
    numbers = torch.arange(first, first + len(labels))
    return {"x": numbers.to(torch.uint8).view(-1, 1, 1, 1), "y": torch.tensor(labels)}


def contents(memory):
    held = memory.everything()
    return list(zip(held["x"].flatten().tolist(), held["y"].tolist(), strict=True))


def test_old_groups_keep_their_first_rows_and_new_ones_come_behind():
    memory = BalancedMemory(6, torch.device("cpu"))
    memory.renew(columns([1, 0, 1, 0, 1, 0]), by="y", keep=3)
    memory.renew(columns([3, 2, 2], first=10), by="y", keep=1)
    assert contents(memory) == [(1, 0), (0, 1), (10, 3), (11, 2), (12, 2)]
    assert len(memory) == 5
    assert memory.nbytes == 5 * (1 + 8)


def test_a_group_with_less_than_its_share_stays_whole():
    memory = BalancedMemory(9, torch.device("cpu"))
    memory.renew(columns([0, 1, 1, 1]), by="y", keep=3)
    memory.renew(columns([2], first=10), by="y", keep=2)
    assert contents(memory) == [(0, 0), (1, 1), (2, 1), (10, 2)]


def test_more_rows_than_there_is_room_for_are_refused():
    memory = BalancedMemory(3, torch.device("cpu"))
    memory.renew(columns([0, 0, 0]), by="y", keep=3)
    with pytest.raises(ValueError, match="4 rows in a buffer of 3"):
        memory.renew(columns([1, 1]), by="y", keep=2)


def test_its_state_restores_it():
    memory, again = (BalancedMemory(4, torch.device("cpu")) for _ in range(2))
    memory.renew(columns([0, 1, 1]), by="y", keep=2)
    again.load_state_dict(memory.state_dict())
    assert contents(again) == contents(memory)
    for each in (memory, again):
        each.renew(columns([2], first=10), by="y", keep=1)
    assert contents(again) == contents(memory) == [(0, 0), (1, 1), (10, 2)]


def shares(groups, total, seed=0):
    rows = evenly_of_each(torch.tensor(groups), total, generator(seed, "exemplars"))
    assert len(rows.unique()) == len(rows)
    return torch.tensor(groups)[rows].bincount(minlength=max(groups) + 1).tolist()


def test_groups_are_chosen_from_evenly():
    assert shares([0] * 9 + [1] * 5 + [2] * 7, 12) == [4, 4, 4]


def test_what_does_not_divide_goes_to_random_groups():
    found = [shares([0] * 9 + [1] * 9 + [2] * 9, 7, seed) for seed in range(30)]
    assert {tuple(sorted(each)) for each in found} == {(2, 2, 3)}
    assert {each.index(3) for each in found} == {0, 1, 2}


def test_what_a_small_group_lacks_is_taken_from_the_others():
    assert shares([0] * 9 + [1] + [2] * 9, 9) == [4, 1, 4]


def test_all_rows_are_given_if_there_are_fewer():
    assert shares([0, 1, 1], 10) == [1, 2]


def test_every_row_of_a_group_is_as_likely_as_the_others():
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    rng = generator(0, "exemplars")
    times = torch.zeros(6)
    for _ in range(2000):
        times[evenly_of_each(groups, 2, rng)] += 1
    expected = torch.tensor([1 / 4] * 4 + [1 / 2] * 2)
    assert torch.allclose(times / 2000, expected, atol=0.05)

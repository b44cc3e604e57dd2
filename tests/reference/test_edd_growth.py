"""How memories of slots grow: counts, the choice of what is frozen, orthogonality."""

import pytest
import torch

from methods.parts.slot_growth import GrowthRule
from methods.parts.slot_memory import SlotMemories, SlotMemory, new_slots

D2 = (1150, 1236, 1297, 1345, 1385, 1419, 1449, 1476, 1500, 1522)
D2 += (1542, 1561, 1579, 1595, 1610, 1625, 1639, 1652, 1665, 1677)


def sizes(tasks, *, rule="d2", ratio=0.15, slots=1000, limit=None):
    """Slots after each task, of which all but `slots` are frozen."""
    total, found = slots, []
    for task in range(1, tasks + 1):
        growth = GrowthRule(rule, ratio, limit)
        total += growth.newly_frozen(task, of=tasks, total=total, unfrozen=slots)
        found.append(total)
    return found


def test_the_recurrence_of_the_paper_is_met_task_by_task():
    assert tuple(sizes(20)) == D2


def test_the_recurrence_ends_at_2418_slots_after_362_tasks():
    found = sizes(400)
    assert found[360] == 2417
    assert found[361:] == [2418] * 39
    assert [found[task - 1] for task in (50, 100, 200, 300)] == [1903, 2086, 2256, 2356]


@pytest.mark.parametrize(
    ("ratio", "after_20", "at_last"),
    [
        (0.05, 1186, 1237),
        (0.10, 1415, 1682),
        (0.20, 1986, 3703),
        (0.25, 2341, 6042),
        (0.30, 2752, 10648),
    ],
)
def test_other_ratios_grow_as_computed_by_hand(ratio, after_20, at_last):
    found = sizes(6000, ratio=ratio)
    assert found[19] == after_20
    assert found[-1] == at_last


@pytest.mark.parametrize(
    ("rule", "after"),
    [
        ("d2", (1385, 1522, 1677)),
        ("eq6_ratio", (1342, 1437, 1532)),
        ("eq6", (3283, 3927, 4590)),
        ("code_class", (2000, 2000, 2000)),
        ("topk", (1750, 2500, 4000)),
    ],
)
def test_every_rule_grows_by_its_formula_in_5_10_and_20_tasks(rule, after):
    assert tuple(sizes(tasks, rule=rule)[-1] for tasks in (5, 10, 20)) == after


def test_the_released_rule_freezes_at_least_one_slot():
    assert sizes(20, rule="code_class", slots=10)[-1] == 30


def test_no_more_slots_are_frozen_than_learn():
    assert GrowthRule("d2", 1.0).newly_frozen(1, of=2, total=300, unfrozen=100) == 100


def test_a_limit_stops_freezing_and_growth():
    assert sizes(5, limit=1240) == [1150, 1236, 1240, 1240, 1240]


@pytest.mark.parametrize(("count", "dim"), [(1000, 64), (1000, 128), (100, 64)])
def test_new_slots_are_uniform_within_a_bound_that_depends_on_their_number(count, dim):
    bound = (6 / (count + dim)) ** 0.5
    for part in new_slots(count, dim):
        assert 0.98 * bound < part.abs().max() <= bound


def memory_of(keys, values):
    memory = SlotMemory(keys.shape[1], len(keys))
    with torch.no_grad():
        memory.keys.copy_(keys)
        memory.values.copy_(values)
    memory.refer()
    return memory


def moved(memory, slots, step):
    """Move the keys of some slots that learn."""
    with torch.no_grad():
        memory.keys[slots] += step


def test_importance_adds_the_movements_of_key_and_value():
    memory = memory_of(torch.zeros(3, 2), torch.zeros(3, 2))
    with torch.no_grad():
        memory.keys[1] = torch.tensor([3.0, 4.0])
        memory.values[1] = torch.tensor([0.0, 2.0])
        memory.values[2] = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(memory.importance(), torch.tensor([0.0, 7.0, 1.0]))


def grow(memory, slots):
    """Freeze as many slots as are then added."""
    memory.freeze(len(slots[0]))
    memory.append(slots)


def test_freezing_alone_changes_nothing_that_is_read():
    memory = memory_of(*torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)))
    moved(memory, [4, 1], 2.0)
    before = {tuple(row.tolist()) for row in torch.cat([memory.all_keys(), memory.all_values()], 1)}
    memory.freeze(2)
    after = {tuple(row.tolist()) for row in torch.cat([memory.all_keys(), memory.all_values()], 1)}
    assert after == before
    assert (memory.frozen, len(memory)) == (2, 6)


def test_the_slots_that_moved_most_are_frozen_and_as_many_added():
    keys, values = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    memory = memory_of(keys, values)
    moved(memory, [4, 1], torch.tensor([[9.0], [5.0]]))
    moved(memory, [0, 2, 3, 5], 0.1)
    now = memory.keys.detach().clone()
    fresh = torch.ones(2, 3), -torch.ones(2, 3)
    grow(memory, fresh)
    assert torch.equal(memory.frozen_keys, now[[1, 4]])
    assert torch.equal(memory.frozen_values, values[[1, 4]])
    assert torch.equal(memory.keys, torch.cat([now[[0, 2, 3, 5]], fresh[0]]))
    assert torch.equal(memory.values, torch.cat([values[[0, 2, 3, 5]], fresh[1]]))
    assert len(memory) == 8
    assert memory.frozen == 2


def test_movement_counts_from_the_reference_that_was_last_set():
    memory = memory_of(torch.zeros(2, 2), torch.zeros(2, 2))
    moved(memory, 0, 5.0)
    memory.refer()
    moved(memory, 1, 1.0)
    assert memory.importance().argmax() == 1
    kept = memory_of(torch.zeros(2, 2), torch.zeros(2, 2))
    moved(kept, 0, 5.0)
    moved(kept, 1, 1.0)
    assert kept.importance().argmax() == 0


def test_a_slot_that_stays_keeps_its_reference_when_others_are_frozen():
    memory = memory_of(torch.zeros(4, 2), torch.zeros(4, 2))
    moved(memory, 0, 5.0)
    moved(memory, 2, 3.0)
    grow(memory, (torch.ones(1, 2), torch.ones(1, 2)))
    torch.testing.assert_close(memory.importance(), torch.tensor([0.0, 18**0.5, 0.0, 0.0]))


@pytest.mark.parametrize("kind", ["sq_mean", "abs_mean"])
def test_orthogonality_is_the_mean_over_pairs_of_frozen_and_learning_slots(kind):
    memory = memory_of(*torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)))
    moved(memory, [0, 3], 1.0)
    grow(memory, new_slots(2, 3))
    wanted = 0.0
    for frozen, learning in (
        (memory.frozen_keys, memory.keys.detach()),
        (memory.frozen_values, memory.values.detach()),
    ):
        total = 0.0
        for old in frozen:
            for new in learning:
                cosine = float(old @ new / (old.norm() * new.norm()))
                total += cosine**2 if kind == "sq_mean" else abs(cosine)
        wanted += total / (len(frozen) * len(learning))
    assert memory.orthogonality(kind).item() == pytest.approx(wanted, rel=1e-5)


def test_orthogonality_of_a_memory_without_frozen_slots_is_0():
    assert SlotMemory(3, 4).orthogonality().item() == 0


def test_orthogonality_of_a_memory_without_learning_slots_is_0():
    memory = SlotMemory(3, 4)
    memory.resize(4, 0)
    assert memory.orthogonality().item() == 0


def test_gradients_of_orthogonality_reach_the_slots_that_learn():
    memory = SlotMemory(3, 4)
    grow(memory, new_slots(1, 3))
    memory.orthogonality().backward()
    assert memory.keys.grad.abs().sum() > 0
    assert memory.values.grad.abs().sum() > 0
    assert {name for name, _ in memory.named_parameters()} == {"keys", "values"}


def test_memories_take_the_shapes_and_the_content_of_a_saved_state():
    first, second = SlotMemories((3, 5), 6), SlotMemories((3, 5), 6)
    grow(first.all()[1], new_slots(2, 5))
    second.resize(first.state_dict())
    second.load_state_dict(first.state_dict())
    assert [len(memory) for memory in second.all()] == [6, 8]
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert first.nbytes == sum(value.nbytes for value in first.state_dict().values())

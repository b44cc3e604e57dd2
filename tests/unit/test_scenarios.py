"""Scenarios: orders and sizes as published, and a cut that loses and doubles nothing."""

import pytest
import torch

from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import ScenarioError, class_order, split_classes, task_sizes

IRREGULAR = {  # random_task_sizes of github.com/lefebvju/climb, 100 classes: (seed, tasks): sizes
    (42, 20): "7 4 8 7 2 9 7 7 2 3 3 8 5 7 3 1 4 1 7 5",
    (0, 20): "7 3 2 2 8 8 5 7 5 9 7 1 8 1 7 1 8 5 2 4",
    (1, 20): "6 11 2 11 4 5 9 5 6 1 8 5 3 8 3 4 1 4 2 2",
    (2, 20): "3 4 9 2 7 9 3 2 3 7 6 1 4 7 4 6 10 7 4 2",
    (42, 50): "3 2 4 3 2 4 3 3 2 2 2 4 3 4 1 1 2 1 3 2 2 1 3 3 2 "
    "1 1 1 1 2 2 3 1 1 1 1 1 1 1 2 1 3 2 1 3 3 1 1 2 1",
}


@pytest.fixture
def dataset() -> Dataset:
    """10 classes, class c with 20 + c training and 4 test images that carry their natural label."""
    y = torch.arange(10).repeat_interleave(torch.arange(20, 30))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(5))]
    test = torch.arange(10).repeat(4)
    names = tuple(f"class {c}" for c in range(10))
    splits = [Split(v.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), v) for v in (y, test)]
    return Dataset("toy", splits[0], splits[1], names, Traits((0.5,), (0.5,)))


def cut(dataset, **changes):
    settings = {
        "num_tasks": 5,
        "distribution": "regular",
        "order": "seeded",
        "validation": 0.1,
        "seed": 3,
    }
    return split_classes(dataset, **{**settings, **changes})


@pytest.mark.parametrize(("seed", "num_tasks"), IRREGULAR)
def test_irregular_sizes_are_the_published_ones(seed, num_tasks):
    sizes = task_sizes("irregular", 100, num_tasks, seed)
    assert " ".join(map(str, sizes)) == IRREGULAR[seed, num_tasks]


@pytest.mark.parametrize(("num_classes", "num_tasks"), [(100, 100), (10, 7), (10, 1), (3, 3)])
def test_irregular_sizes_leave_no_task_empty(num_classes, num_tasks):
    for seed in range(20):
        sizes = task_sizes("irregular", num_classes, num_tasks, seed)
        assert len(sizes) == num_tasks
        assert min(sizes) >= 1
        assert sum(sizes) == num_classes


def test_regular_names_the_nearest_numbers_of_tasks():
    assert task_sizes("regular", 100, 20, 0) == (5,) * 20
    with pytest.raises(ScenarioError, match=r"nearest .* are 25 and 50"):
        task_sizes("regular", 100, 30, 0)


@pytest.mark.parametrize("distribution", ["regular", "irregular"])
@pytest.mark.parametrize("num_tasks", [0, -1, 11])
def test_impossible_numbers_of_tasks_are_refused(distribution, num_tasks):
    with pytest.raises(ScenarioError, match="tasks"):
        task_sizes(distribution, 10, num_tasks, 0)


def test_unknown_words_are_refused():
    with pytest.raises(ScenarioError, match="'even'"):
        task_sizes("even", 10, 2, 0)
    with pytest.raises(ScenarioError, match="'random'"):
        class_order("random", 10, 0)


def test_the_seeded_order_is_that_of_the_raw_seed():
    rng = torch.Generator().manual_seed(42)
    assert class_order("seeded", 100, 42) == tuple(torch.randperm(100, generator=rng).tolist())
    assert class_order("seeded", 100, 42) != class_order("seeded", 100, 43)


def test_the_pycil_order_is_the_published_one_for_every_seed():
    begins = (68, 56, 78, 8, 23, 84, 90, 65, 74, 76)  # as PyCIL logs it for CIFAR-100
    assert class_order("pycil1993", 100, 0)[:10] == begins
    assert class_order("pycil1993", 100, 0) == class_order("pycil1993", 100, 1)


def test_a_list_is_an_order_if_it_is_a_permutation():
    assert class_order([2, 0, 1], 3, 0) == (2, 0, 1)
    with pytest.raises(ScenarioError, match=r"missing: \[1\]; doubled: \[0\]; unknown: \[7\]"):
        class_order((0, 0, 2, 7), 4 - 1, 0)


@pytest.mark.parametrize("distribution", ["regular", "irregular"])
def test_every_row_is_in_one_place(dataset, distribution):
    scenario = cut(dataset, distribution=distribution)
    train = torch.cat([rows for task in scenario.tasks for rows in (task.train, task.validation)])
    test = torch.cat([task.test for task in scenario.tasks])
    assert torch.equal(train.sort().values, torch.arange(len(dataset.train)))
    assert torch.equal(test.sort().values, torch.arange(len(dataset.test)))


def test_a_task_holds_its_classes_and_no_others(dataset):
    scenario = cut(dataset, distribution="irregular")
    assert [label for task in scenario.tasks for label in task.classes] == list(range(10))
    for task in scenario.tasks:
        for rows in (task.train, task.validation):
            assert set(scenario.dataset.train.y[rows].tolist()) == set(task.classes)
        assert set(scenario.dataset.test.y[task.test].tolist()) == set(task.classes)


def test_labels_follow_the_class_order_and_images_stay(dataset):
    scenario = cut(dataset)
    natural = torch.tensor(scenario.class_order)
    for split in ("train", "test"):
        before, after = getattr(dataset, split), getattr(scenario.dataset, split)
        assert after.x is before.x
        assert torch.equal(natural[after.y], before.y)
    assert scenario.dataset.class_names == tuple(f"class {c}" for c in scenario.class_order)


def test_validation_is_the_rounded_down_share_of_each_class(dataset):
    scenario = cut(dataset, validation=0.15, order="natural")
    held_out = torch.cat([task.validation for task in scenario.tasks])
    counts = dataset.train.y[held_out].bincount(minlength=10).tolist()
    assert counts == [15 * (20 + c) // 100 for c in range(10)]


def test_validation_images_depend_on_the_seed_alone(dataset):
    def images(**changes):
        tasks = cut(dataset, **changes).tasks
        return torch.cat([task.validation for task in tasks]).sort().values

    assert torch.equal(images(), images(order="natural", num_tasks=2))
    assert torch.equal(images(), images(order="natural", distribution="irregular"))
    assert not torch.equal(images(), images(seed=4))


def test_no_validation_leaves_all_rows_to_training(dataset):
    scenario = cut(dataset, validation=0.0)
    assert sum(len(task.train) for task in scenario.tasks) == len(dataset.train)
    assert all(len(task.validation) == 0 for task in scenario.tasks)
    with pytest.raises(ScenarioError, match="validation is 1"):
        cut(dataset, validation=1.0)


def test_rows_ascend(dataset):
    for task in cut(dataset).tasks:
        for rows in (task.train, task.validation, task.test):
            assert torch.equal(rows, rows.sort().values)


def test_seen_classes_grow_by_task(dataset):
    scenario = cut(dataset)
    assert [len(scenario.seen_classes(t)) for t in range(-1, 5)] == [0, 2, 4, 6, 8, 10]


def test_the_global_generator_is_left_alone(dataset):
    state = torch.random.get_rng_state()
    cut(dataset, distribution="irregular")
    assert torch.equal(state, torch.random.get_rng_state())

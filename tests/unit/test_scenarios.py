"""Scenarios: orders and sizes as published, and a cut that loses and doubles nothing."""

from dataclasses import replace

import pytest
import torch

from harness.checkpoint import CheckpointFolder
from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import (
    ScenarioError,
    class_order,
    split_classes,
    split_domains,
    task_sizes,
)
from harness.data.sets import digits
from harness.errors import UserError
from harness.grid import expand
from harness.suite import load_suite
from harness.trial import TrialRun

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


# --- cut by domain


@pytest.fixture
def photographs() -> Dataset:
    """4 classes c in 3 domains d, each pair with 10 + 3 c + d training and 1 + d test images."""
    splits = []
    for number in (lambda c, d: 10 + 3 * c + d, lambda _, d: 1 + d):
        pairs = [(c, d) for c in range(4) for d in range(3) for _ in range(number(c, d))]
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(6))
        y, domain = torch.tensor(pairs)[order].unbind(1)
        splits.append(Split((10 * y + domain).byte().view(-1, 1, 1, 1), y, domain))
    return Dataset("toy", splits[0], splits[1], ("a", "b", "c", "d"), Traits((0.5,), (0.5,)))


def by_domain(dataset, **changes):
    settings = {"num_tasks": 3, "order": "seeded", "validation": 0.25, "seed": 3}
    return split_domains(dataset, **{**settings, **changes})


def test_a_task_of_a_domain_holds_its_images_alone_and_all_classes(photographs):
    scenario = by_domain(photographs)
    assert scenario.distribution == "domains"
    for domain, task in enumerate(scenario.tasks):
        assert (task.position, task.classes) == (domain, range(4))
        train = torch.cat([task.train, task.validation]).sort().values
        assert torch.equal(train, (photographs.train.domain == domain).nonzero()[:, 0])
        assert torch.equal(task.test, (photographs.test.domain == domain).nonzero()[:, 0])


def test_validation_is_a_share_of_each_class_in_each_domain(photographs):
    scenario = by_domain(photographs, order="natural")
    for domain, task in enumerate(scenario.tasks):
        counts = photographs.train.y[task.validation].bincount(minlength=4).tolist()
        assert counts == [(10 + 3 * c + domain) // 4 for c in range(4)]
        assert not set(task.train.tolist()) & set(task.validation.tolist())


def test_validation_images_of_domains_depend_on_the_seed_alone(photographs):
    def images(**changes):
        return torch.cat([task.validation for task in by_domain(photographs, **changes).tasks])

    assert torch.equal(images(), images(order="natural"))
    assert not torch.equal(images(), images(seed=4))


def test_labels_of_domains_follow_the_class_order(photographs):
    scenario = by_domain(photographs, order=(2, 0, 3, 1))
    natural = torch.tensor([2, 0, 3, 1])
    for split in (scenario.dataset.train, scenario.dataset.test):
        assert torch.equal(10 * natural[split.y] + split.domain, split.x.flatten().long())
    assert scenario.dataset.class_names == ("c", "a", "d", "b")


def test_all_classes_of_domains_are_seen_from_the_first_task_on(photographs):
    scenario = by_domain(photographs)
    assert [scenario.seen_classes(t) for t in range(-1, 3)] == [range(0), *[range(4)] * 3]


def test_a_cut_by_domain_needs_domains_and_as_many_tasks(photographs, dataset):
    with pytest.raises(ScenarioError, match="num_tasks is 2, but each of the 3 domains is a task"):
        by_domain(photographs, num_tasks=2)
    with pytest.raises(ScenarioError, match="data set toy has no domains"):
        by_domain(dataset)
    with pytest.raises(ScenarioError, match="validation is -1"):
        by_domain(photographs, validation=-1)


SUITE = """
protocol: class_incremental
methods: [finetune]
distribution: [domains]
seeds: [0]
set: {epochs: 1, batch_size: 32, backbone.hidden: [16], validation: 0.1}
"""


@pytest.fixture
def planned(tmp_path):
    def plan(dataset, num_tasks):
        path = tmp_path / "suite.yaml"
        path.write_text(SUITE)
        return expand(load_suite(path, [f"datasets={dataset}", f"num_tasks={num_tasks}"]))[0]

    return plan


def test_a_data_set_without_domains_is_refused_when_planning(planned):
    with pytest.raises(UserError, match=r"suite\.yaml: data set digits has no domains; its distr"):
        planned("digits", 5)


def test_another_number_of_tasks_than_domains_is_refused_when_planning(planned):
    assert planned("clear100", 11)[0].cell == "clear100/11 domains"
    with pytest.raises(UserError, match="clear100: num_tasks is 10, but each of the 11 domains"):
        planned("clear100", 10)


def digits_in_domains(config, root, load=digits.load):
    """The digits, whose images get darker from domain to domain."""
    dataset = load(config, root)
    splits = []
    for split in (dataset.train, dataset.test):
        domain = torch.arange(len(split)) % 3
        splits.append(Split(split.x // (1 + domain).byte().view(-1, 1, 1, 1), split.y, domain))
    return replace(dataset, train=splits[0], test=splits[1])


def test_a_trial_learns_domain_by_domain_and_is_measured_on_each(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "num_domains", lambda _: 3, raising=False)
    monkeypatch.setattr(digits, "load", digits_in_domains)
    (trial,) = planned("digits", 3)
    run = TrialRun(trial, tmp_path, torch.device("cpu"))
    rows = run.run(CheckpointFolder(tmp_path / "checkpoints"), lambda _: None, started="now")
    train, test = run.scenario.dataset.train, run.scenario.dataset.test
    held_out = sum(int((train.domain[train.y == c] == d).sum() * 0.1 + 1e-9)
                   for c in range(10) for d in range(3))  # fmt: skip
    assert rows[-1].samples_seen == len(train) - held_out
    il, task_il = (
        {(r.after_task, r.on_task): (r.value, r.n) for r in rows if r.metric == metric}
        for metric in ("accuracy", "accuracy_task_il")
    )
    assert il.keys() == {(k, i) for k in range(3) for i in range(k + 1)}
    assert task_il.keys() == {(k, i) for k in range(-1, 3) for i in range(3)}
    for at, value in il.items():
        assert value == task_il[at]
    for domain in range(3):
        mine = test.domain == domain
        right = run.method.predict(test.x[mine]).argmax(1) == test.y[mine]
        assert il[2, domain] == (pytest.approx(right.double().mean().item()), int(mine.sum()))
    assert 0.5 < il[2, 2][0] <= 1

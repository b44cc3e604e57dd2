"""A scenario cuts a data set into an ordered sequence of tasks, by class or by domain.

Cut by class, every task has classes of its own (class-incremental); cut by domain, every task has
all classes and images of its own domain (domain-incremental; van de Ven and Tolias, 2019,
arXiv:1904.07734).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.data.base import Dataset
from harness.errors import UserError
from harness.seeds import generator


class ScenarioError(UserError):
    """A data set cannot be cut in the way that was asked for; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """The task at `position`, counted from 0.

    `classes` are its labels in the scenario, which are consecutive: labels of its own in a cut by
    class, all of them in a cut by domain. `train` and `validation` are ascending row numbers into
    the scenario's `dataset.train`, `test` into its `dataset.test`.
    """

    position: int
    classes: range
    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """A data set whose labels count its classes in the order in which they appear, and its tasks.

    `class_order[label]` is the label that the class has in the data set's own (natural) order.
    """

    dataset: Dataset
    tasks: tuple[Task, ...]
    class_order: tuple[int, ...]
    distribution: str

    def seen_classes(self, after_task: int) -> range:
        """The labels of the tasks up to and including `after_task`; -1 is before training."""
        return range(self.tasks[after_task].classes.stop if after_task >= 0 else 0)


def class_order(kind: str | Sequence[int], num_classes: int, seed: int) -> tuple[int, ...]:
    """The classes 0 to num_classes - 1 in their order of appearance.

    Args:
        kind: "seeded", a permutation by the trial's raw seed (as the nc_scenario of Avalanche);
            "natural", ascending; "pycil1993", the order of PyCIL's published runs, for any seed;
            or the order itself.
        num_classes: How many there are.
        seed: The trial's raw seed.
    """
    if not isinstance(kind, str):
        return _permutation(kind, num_classes)
    if kind == "natural":
        return tuple(range(num_classes))
    if kind == "seeded":
        rng = torch.Generator().manual_seed(seed)
        return tuple(torch.randperm(num_classes, generator=rng).tolist())
    if kind == "pycil1993":
        legacy = np.random.RandomState(1993)  # the published order needs the old generator
        return tuple(legacy.permutation(num_classes).tolist())
    raise ScenarioError(f"unknown class order {kind!r}: seeded, natural, pycil1993 or a list")


def _permutation(order: Sequence[int], num_classes: int) -> tuple[int, ...]:
    wanted = set(range(num_classes))
    faults = {
        "missing": sorted(wanted.difference(order)),
        "doubled": sorted(label for label, times in Counter(order).items() if times > 1),
        "unknown": sorted(set(order) - wanted),
    }
    if any(faults.values()):
        found = "; ".join(f"{fault}: {ids}" for fault, ids in faults.items() if ids)
        raise ScenarioError(f"class order is no permutation of 0 to {num_classes - 1}; {found}")
    return tuple(order)


def task_sizes(distribution: str, num_classes: int, num_tasks: int, seed: int) -> tuple[int, ...]:
    """Classes in each task; `seed` is the trial's raw seed, which "irregular" sizes depend on.

    "domains", which all have all classes, are not counted here (`check_domains`).
    """
    if distribution == "domains":
        return (num_classes,) * num_tasks
    if num_tasks < 1:
        raise ScenarioError(f"num_tasks is {num_tasks}: there must be at least one task")
    if num_tasks > num_classes:
        raise ScenarioError(f"{num_classes} classes cannot fill {num_tasks} tasks")
    if distribution == "regular":
        return _regular(num_classes, num_tasks)
    if distribution == "irregular":
        return _irregular(num_classes, num_tasks, seed)
    raise ScenarioError(f"unknown distribution {distribution!r}: regular, irregular or domains")


def _regular(num_classes: int, num_tasks: int) -> tuple[int, ...]:
    if num_classes % num_tasks:
        valid = [n for n in range(1, num_classes + 1) if num_classes % n == 0]
        below = max(n for n in valid if n < num_tasks)
        above = min(n for n in valid if n > num_tasks)
        raise ScenarioError(
            f"{num_classes} classes cannot be cut into {num_tasks} equal tasks; "
            f"the nearest numbers of tasks that can are {below} and {above}"
        )
    return (num_classes // num_tasks,) * num_tasks


def _irregular(num_classes: int, num_tasks: int, seed: int) -> tuple[int, ...]:
    """Random sizes of at least one class (random_task_sizes of github.com/lefebvju/climb)."""
    shares = np.random.default_rng(seed).uniform(0, 1, num_tasks)
    sizes = np.maximum(np.floor(shares / shares.sum() * num_classes).astype(int), 1)
    lacking = num_classes - int(sizes.sum())
    while lacking:
        for i in range(num_tasks):
            step = 1 if lacking > 0 else -1 if lacking < 0 and sizes[i] > 1 else 0
            sizes[i] += step
            lacking -= step
    return tuple(sizes.tolist())


def check_domains(num_domains: int, num_tasks: int) -> None:
    """A cut by domain has as many tasks as there are domains."""
    if num_tasks != num_domains:
        raise ScenarioError(
            f"num_tasks is {num_tasks}, but each of the {num_domains} domains is a task"
        )


def split_classes(
    dataset: Dataset,
    *,
    num_tasks: int,
    distribution: str,
    order: str | Sequence[int],
    validation: float,
    seed: int,
) -> Scenario:
    """Cut a data set into tasks with disjoint classes.

    Args:
        dataset: With labels in its natural order, on any device; the scenario shares its images.
            The row numbers of the tasks are on the CPU.
        num_tasks: How many tasks.
        distribution: "regular" or "irregular", see `task_sizes`.
        order: A kind of order or the order itself, see `class_order`.
        validation: Share of each class's training images that is held out of its task, rounded
            down; which ones depends on the seed alone, not on the order or the tasks. In a data
            set of videos it is a share of their sessions, rounded down, but at least one.
        seed: The trial's raw seed.
    """
    order = class_order(order, dataset.num_classes, seed)
    sizes = torch.tensor(task_sizes(distribution, len(order), num_tasks, seed))
    ordered = _relabel(dataset, order)
    position = torch.arange(num_tasks).repeat_interleave(sizes)  # of each label's task
    train, test = (position[split.y.cpu()] for split in (ordered.train, ordered.test))
    stops = sizes.cumsum(0).tolist()
    labels = [range(stop - size, stop) for stop, size in zip(stops, sizes.tolist(), strict=True)]
    held_out = _held_out(ordered, train, share=validation, seed=seed)
    return Scenario(ordered, _tasks(labels, train, test, held_out), order, distribution)


def split_domains(
    dataset: Dataset,
    *,
    num_tasks: int,
    order: str | Sequence[int],
    validation: float,
    seed: int,
) -> Scenario:
    """Cut a data set into one task a domain, in their order, each with all classes.

    Args:
        dataset: With domains, else as in `split_classes`.
        num_tasks: How many domains there are.
        order: As in `split_classes`; gives the classes their labels.
        validation: Share of each class's training images in each domain that is held out,
            rounded down; which ones depends on the seed alone.
        seed: The trial's raw seed.
    """
    train, test = dataset.train.domain, dataset.test.domain
    if train is None or test is None:
        raise ScenarioError(f"data set {dataset.name} has no domains")
    train, test = train.cpu(), test.cpu()
    check_domains(int(torch.cat([train, test]).max()) + 1, num_tasks)
    order = class_order(order, dataset.num_classes, seed)
    ordered = _relabel(dataset, order)
    held_out = _held_out(ordered, train, share=validation, seed=seed)
    labels = [range(len(order))] * num_tasks
    return Scenario(ordered, _tasks(labels, train, test, held_out), order, "domains")


def _relabel(dataset: Dataset, order: tuple[int, ...]) -> Dataset:
    """The same images; a class's label is its rank in the order."""
    rank = torch.tensor(order, device=dataset.train.y.device).argsort()
    return replace(
        dataset,
        train=replace(dataset.train, y=rank[dataset.train.y]),
        test=replace(dataset.test, y=rank[dataset.test.y]),
        class_names=tuple(dataset.class_names[label] for label in order),
    )


def _held_out(dataset: Dataset, task: Tensor, *, share: float, seed: int) -> Tensor:
    """A mask (N,) of the validation rows.

    Args:
        dataset: Whose training rows are meant.
        task: The task of each of them, int64 (N,).
        share: Of the rows of a class in a task, or of the sessions of a data set that has them.
        seed: The trial's raw seed.
    """
    if not 0 <= share < 1:
        raise ScenarioError(f"validation is {share}: it must be at least 0 and below 1")
    rng = generator(seed, "validation")
    if dataset.train.session is not None:
        return _sessions(dataset, dataset.train.session, share=share, rng=rng)
    return _share_of_groups(task * dataset.num_classes + dataset.train.y.cpu(), share, rng)


def _share_of_groups(group: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Of each group, the first of its shuffled rows; rounded down."""
    shuffled = torch.randperm(len(group), generator=rng)
    by_group = shuffled[group[shuffled].argsort(stable=True)]
    counts = group.bincount()
    # 0.29 of 100 is 29, in spite of binary floats
    wanted = (counts.double() * share + 1e-9).floor().long()
    rank = torch.arange(len(group)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    mask = torch.zeros(len(group), dtype=torch.bool)
    mask[by_group] = rank < wanted.repeat_interleave(counts)
    return mask


def _sessions(dataset: Dataset, session: Tensor, *, share: float, rng: torch.Generator) -> Tensor:
    """All rows of some sessions, the same of every class; at least one session, if any.

    Neighbouring frames of a video are almost equal: were one trained on and the other measured, the
    measure would say nothing. The test images are of sessions of their own as well.
    """
    numbers = session.unique()
    shuffled = numbers[torch.randperm(len(numbers), generator=rng)]
    wanted = max(1, int(len(numbers) * share + 1e-9)) if share else 0
    mask = torch.isin(session, shuffled[:wanted])
    left = dataset.train.y.cpu()[~mask].bincount(minlength=dataset.num_classes)
    if not left.all():
        name = dataset.class_names[int(left.argmin())]
        raise ScenarioError(
            f"validation is {share}: {wanted} of {len(numbers)} sessions are held out, and leave "
            f"no training image of class {name!r}"
        )
    return mask


def _tasks(
    classes: Sequence[range], train: Tensor, test: Tensor, held_out: Tensor
) -> tuple[Task, ...]:
    """The tasks, given their classes, each row's task, and which training rows are held out."""
    rows = zip(
        classes,
        _rows_by_task(train, len(classes), keep=~held_out),
        _rows_by_task(train, len(classes), keep=held_out),
        _rows_by_task(test, len(classes)),
        strict=True,
    )
    return tuple(Task(position, *of_task) for position, of_task in enumerate(rows))


def _rows_by_task(task: Tensor, num_tasks: int, keep: Tensor | None = None) -> list[Tensor]:
    """The ascending row numbers of each task, given the task (N,) of each row."""
    rows = torch.arange(len(task)) if keep is None else keep.nonzero()[:, 0]
    task = task[rows]
    counts = task.bincount(minlength=num_tasks).tolist()
    return list(rows[task.argsort(stable=True)].split(counts))

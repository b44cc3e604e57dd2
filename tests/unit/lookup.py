"""A method whose features and scores are written by hand, and a scenario of its images."""

import copy
import random

import numpy as np
import torch

from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import split_classes, split_domains
from harness.measure import Checkpoint, Cost, Details
from methods.base import Method


class Lookup(Method):
    """Looks features, scores and logits up by the number that an image spells in two bytes."""

    predicts = True

    def __init__(self, *, features=None, scores=None, logits=None):
        self.tables = {"features": features, "scores": scores, "logits": logits}

    def _rows(self, name, x):
        return self.tables[name][x[:, 0, 0, 0].long() + 256 * x[:, 0, 0, 1].long()]

    def embed(self, x):
        return self._rows("features", x)

    def predict(self, x, task=None):
        del task
        return self._rows("scores", x)

    def class_logits(self, x):
        return self._rows("logits", x)

    def observe(self, batch):
        del batch
        raise AssertionError("an evaluator trains nothing")

    def memory(self):
        return {}

    def parameters(self):
        return 0

    def state_dict(self):
        return self.tables

    def load_state_dict(self, state):
        del state
        raise AssertionError("an evaluator loads nothing")


def pictures(numbers):
    """Images (N, 1, 1, 2) that spell these numbers."""
    return torch.stack([numbers % 256, numbers // 256], 1).to(torch.uint8).view(-1, 1, 1, 2)


def scenario(test, *, train=None, tasks, domains=False, validation=0.0):
    """A scenario whose test image number i has label test[i] and spells i.

    Training images spell the numbers that follow. With `domains`, the images of a class lie in
    each of the tasks in turn.
    """
    classes = max(test) + 1
    train = list(range(classes)) * tasks if train is None else train
    parts = {"test": torch.tensor(test), "train": torch.tensor(train)}
    first = {"test": 0, "train": len(test)}
    splits = {}
    for name, y in parts.items():
        turn = torch.tensor([y[:i].tolist().count(label) for i, label in enumerate(y.tolist())])
        x = pictures(torch.arange(first[name], first[name] + len(y)))
        splits[name] = Split(x, y, turn % tasks if domains else None)
    names = tuple("abcdefghijklmnopqrstuvwxyz"[:classes])
    dataset = Dataset("hand-made", splits["train"], splits["test"], names, Traits((0.5,), (0.5,)))
    shared = {"num_tasks": tasks, "order": "natural", "validation": validation, "seed": 0}
    if domains:
        return split_domains(dataset, **shared)
    return split_classes(dataset, distribution="regular", **shared)


def checkpoint(method, tasks, *, after_task=None, split="test", seed=0):
    """The method after a task, the last one if none is named."""
    after_task = len(tasks.tasks) - 1 if after_task is None else after_task
    cost = Cost(0.0, 0.0, None, 0)
    return Checkpoint(method, tasks, after_task, split=split, seed=seed, cost=lambda: cost)


def found(evaluator, *arguments, **keywords):
    """What an evaluator yields: values by metric, task and condition; details by kind.

    It must yield the same twice, and leave the method and the global generators as they are.
    """
    method = arguments[0]
    before = copy.deepcopy(method.tables), global_states()
    runs = [list(evaluator.evaluate(checkpoint(*arguments, **keywords))) for _ in range(2)]
    assert [described(one) for one in runs[0]] == [described(one) for one in runs[1]]
    assert described(before[0]) == described(method.tables)
    assert before[1] == global_states()
    numbers, details = {}, {}
    for one in runs[0]:
        if isinstance(one, Details):
            assert one.kind not in details
            assert len({len(column) for column in one.columns.values()}) == 1
            details[one.kind] = one.columns
        else:
            assert type(one.value) is float
            assert type(one.n) is int
            key = (one.metric, one.on_task, one.condition)
            assert key not in numbers
            numbers[key] = one
    return numbers, details


def described(value):
    """Anything an evaluator yields, or a table, with every bit of its numbers."""
    if isinstance(value, Details):
        columns = {name: (c.dtype.str, c.tolist()) for name, c in value.columns.items()}
        return repr((value.kind, columns))
    if isinstance(value, dict):
        return repr({k: v if v is None else v.tolist() for k, v in value.items()})
    return repr(value)


def values(numbers, metric, condition=None):
    """A metric's values by task."""
    return {
        m.on_task: m.value
        for (name, _, c), m in numbers.items()
        if (name, c) == (metric, condition)
    }


def global_states():
    legacy = [str(word) for word in np.random.get_state()]  # noqa: NPY002
    return torch.get_rng_state().tolist(), legacy, random.getstate()


def scores_of(guesses, classes):
    """Scores (N, classes) whose best class of each image is the guessed one."""
    return torch.nn.functional.one_hot(torch.tensor(guesses), classes).float()

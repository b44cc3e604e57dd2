"""Evaluators against naive versions, on methods whose features and scores are written by hand."""

import copy
import random

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import split_classes
from harness.errors import UserError
from harness.evaluators import classifier, probe_knn, probe_linear, probe_ridge
from harness.measure import Checkpoint, Cost
from methods.base import Method

CLASSES, TASKS, DIM = 6, 3, 5


class Table(Method):
    """Looks features and scores up by the number that an image spells in two bytes."""

    predicts = True

    def __init__(self, features=None, scores=None):
        self.tables = {"features": features, "scores": scores}

    def _rows(self, name, x):
        return self.tables[name][x[:, 0, 0, 0].long() + 256 * x[:, 0, 0, 1].long()]

    def embed(self, x):
        return self._rows("features", x)

    def predict(self, x, task=None):
        del task
        return self._rows("scores", x)

    def observe(self, batch):
        del batch
        return {}

    def memory(self):
        return {"exemplars": 7}

    def parameters(self):
        return 3

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def split(count, start):
    """`count` images a class, in turn; each spells its own number."""
    number = torch.arange(start, start + count * CLASSES)
    x = torch.stack([number % 256, number // 256], 1).to(torch.uint8).view(-1, 1, 1, 2)
    return Split(x, torch.arange(CLASSES).repeat(count))


def scenario(train=60, validation=0.2, test=20):
    names = tuple("abcdef")
    splits = split(train, 0), split(test, train * CLASSES)
    dataset = Dataset("hand-made", *splits, names, Traits((0.5,), (0.5,)))
    return split_classes(
        dataset,
        num_tasks=TASKS,
        distribution="regular",
        order="natural",
        validation=validation,
        seed=0,
    )


def features(tasks, *, noise, seed=0):
    """Class centres plus noise, a row for every image of `tasks`."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.cat([tasks.dataset.train.y, tasks.dataset.test.y])
    centres = 3 * torch.randn(CLASSES, DIM, generator=rng)
    return centres[labels] + noise * torch.randn(len(labels), DIM, generator=rng)


def checkpoint(method, tasks, *, after_task=TASKS - 1, split="test", seed=0):
    def cost():
        return Cost(1.0, 2.0, 0.5, 3)

    return Checkpoint(method, tasks, after_task, split=split, seed=seed, cost=cost)


def measured(evaluator, *arguments, **keywords):
    return list(evaluator.evaluate(checkpoint(*arguments, **keywords)))


def accuracies(guesses, tasks):
    """Share of right guesses of the test images of each task, counted one by one."""
    found = []
    for task in tasks.tasks:
        labels = tasks.dataset.test.y[task.test].tolist()
        guessed = guesses[task.position]
        found.append(sum(g == y for g, y in zip(guessed, labels, strict=True)) / len(labels))
    return found


def part(tasks, table, name):
    """Features and labels of one part of the data, task after task."""
    rows = torch.cat([getattr(task, name) for task in tasks.tasks])
    data, offset = tasks.dataset.train, 0
    if name == "test":
        data, offset = tasks.dataset.test, len(tasks.dataset.train)
    return table[rows + offset], data.y[rows]


PROBES = {
    "linear": probe_linear.build(probe_linear.Config(epochs=30)),
    "ridge": probe_ridge.build(probe_ridge.Config()),
    "knn": probe_knn.build(probe_knn.Config(neighbours=5)),
}
every_probe = pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)


@every_probe
def test_a_probe_is_always_right_about_separable_features(probe):
    tasks = scenario()
    found = measured(probe, Table(features(tasks, noise=0.01)), tasks, after_task=0)
    assert [(m.on_task, m.metric, m.value, m.n) for m in found] == [
        (task, "accuracy", 1.0, 40) for task in range(TASKS)
    ]


@every_probe
def test_a_probe_knows_no_more_than_chance_without_information(probe):
    tasks = scenario(train=100, test=60)
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(CLASSES * 160, DIM, generator=rng)
    found = measured(probe, Table(noise), tasks)
    # 360 guesses with a chance of one sixth: four standard deviations are 0.08.
    assert sum(m.value for m in found) / TASKS == pytest.approx(1 / CLASSES, abs=0.08)


@every_probe
def test_a_probe_leaves_the_global_generators_alone(probe):
    def states():
        legacy = [str(word) for word in np.random.get_state()]  # noqa: NPY002
        return torch.get_rng_state().tolist(), legacy, random.getstate()

    tasks = scenario()
    before = states()
    measured(probe, Table(features(tasks, noise=1.0)), tasks)
    assert states() == before


@every_probe
def test_a_probe_can_measure_the_validation_images(probe):
    tasks = scenario()
    found = measured(probe, Table(features(tasks, noise=0.01)), tasks, split="validation")
    assert [(m.value, m.n) for m in found] == [(1.0, 24)] * TASKS


@every_probe
def test_a_probe_repeats_itself(probe):
    tasks = scenario()
    table = Table(features(tasks, noise=3.0))
    assert measured(probe, table, tasks) == measured(probe, table, tasks)


def naive_linear_probe(train, validation, test, config, rng):
    """CLA's probe (Cignoni et al., CoLLAs 2025), step by step.

    Gives the guesses for `test` and the learning rate of every epoch.
    """
    train, validation, test = (
        (x / x.norm(dim=1, keepdim=True), y) for x, y in (train, validation, test)
    )
    layer = nn.Linear(DIM, CLASSES)
    with torch.no_grad():
        for weights in (layer.weight, layer.bias):
            weights.uniform_(-(DIM**-0.5), DIM**-0.5, generator=rng)
    adam = torch.optim.Adam(layer.parameters(), lr=config.lr)
    rates, best, waited = [], (-1.0, None), 0
    while len(rates) < config.epochs and adam.param_groups[0]["lr"] >= config.min_lr:
        rates.append(adam.param_groups[0]["lr"])
        order = torch.randperm(len(train[1]), generator=rng).tolist()
        for first in range(0, len(order) - config.batch_size + 1, config.batch_size):
            rows = order[first : first + config.batch_size]
            adam.zero_grad()
            F.cross_entropy(layer(train[0][rows]), train[1][rows]).backward()
            adam.step()
        right = (layer(validation[0]).argmax(1) == validation[1]).sum().item()
        waited += 1
        if right > best[0]:
            best, waited = (right, copy.deepcopy(layer.state_dict())), 0
        if waited == config.patience:
            adam.param_groups[0]["lr"] /= config.factor
            layer.load_state_dict(best[1])
            waited = 0
    layer.load_state_dict(best[1])
    return layer(test[0]).argmax(1), rates


@pytest.mark.parametrize(
    ("noise", "config"),
    [
        (2.0, probe_linear.Config(batch_size=64, epochs=25)),
        (4.0, probe_linear.Config(batch_size=50, lr=0.3, epochs=20)),
        (4.0, probe_linear.Config(batch_size=100, patience=2, factor=2.0, min_lr=1e-2)),
        (3.0, probe_linear.Config(batch_size=32, epochs=3)),
    ],
)
def test_the_linear_probe_is_the_naive_one(noise, config):
    tasks = scenario()
    table = features(tasks, noise=noise)
    parts = [part(tasks, table, name) for name in ("train", "validation", "test")]
    here = checkpoint(Table(table), tasks)
    wanted, _ = naive_linear_probe(*parts, config, here.rng("probe_linear"))
    assert torch.equal(probe_linear.build(config).guesses(here), wanted)


def test_the_linear_probe_ends_once_its_rate_has_fallen_below_the_least():
    """Nothing ever improves: one epoch, then five at each of the rates 0.05 / 3**k above 1e-4."""
    tasks = scenario()
    table = torch.ones(CLASSES * 80, DIM)
    parts = [part(tasks, table, name) for name in ("train", "validation", "test")]
    here = checkpoint(Table(table), tasks)
    config = probe_linear.Config(batch_size=64)
    wanted, rates = naive_linear_probe(*parts, config, here.rng("probe_linear"))
    steps = [0.05 / 3**k for k in range(6)]
    assert rates == pytest.approx([0.05, *(rate for rate in steps for _ in range(5))])
    assert torch.equal(probe_linear.build(config).guesses(here), wanted)


def test_the_linear_probe_trains_on_a_part_that_is_smaller_than_a_batch():
    tasks = scenario(train=10)
    found = measured(PROBES["linear"], Table(features(tasks, noise=0.01)), tasks)
    assert [m.value for m in found] == [1.0] * TASKS


def test_the_linear_probe_does_not_see_lengths():
    tasks = scenario()
    table = features(tasks, noise=2.0)
    lengths = torch.rand(len(table), 1, generator=torch.Generator().manual_seed(0)) + 0.5
    found = [measured(PROBES["linear"], Table(t), tasks) for t in (table, 8 * table)]
    assert found[0] == found[1]
    scaled = measured(PROBES["linear"], Table(lengths * table), tasks)
    for one, other in zip(found[0], scaled, strict=True):
        assert one.value == pytest.approx(other.value, abs=0.05)


def test_the_linear_probe_refuses_to_stop_early_without_validation_images():
    tasks = scenario(train=4, validation=0.2)  # a fifth of four images is none
    with pytest.raises(UserError, match="validation"):
        measured(PROBES["linear"], Table(features(tasks, noise=1.0)), tasks)


@pytest.mark.parametrize("alpha", [1.0, 50.0])
def test_the_ridge_probe_is_scikit_learn_s_on_standardised_features(alpha):
    probe = probe_ridge.build(probe_ridge.Config(alpha=alpha))
    check_scikit(probe, RidgeClassifier(alpha=alpha))


@pytest.mark.parametrize("neighbours", [1, 50])
def test_the_knn_probe_is_scikit_learn_s_on_standardised_features(neighbours):
    probe = probe_knn.build(probe_knn.Config(neighbours=neighbours))
    check_scikit(probe, KNeighborsClassifier(n_neighbors=neighbours))


def check_scikit(probe, model):
    tasks = scenario()
    table = features(tasks, noise=3.0)
    table[:, 0] *= 100  # standardisation matters
    table[:, 1] = 7  # and does not stumble over a constant
    train, test = part(tasks, table, "train"), part(tasks, table, "test")
    scaler = StandardScaler().fit(train[0].numpy())
    model.fit(scaler.transform(train[0].numpy()), train[1].numpy())
    guesses = model.predict(scaler.transform(test[0].numpy())).reshape(TASKS, -1)
    found = measured(probe, Table(table), tasks)
    assert [m.value for m in found] == pytest.approx(accuracies(guesses.tolist(), tasks))
    assert min(m.value for m in found) < 1


def table_of_scores(tasks, rows):
    """The same scores for every test image of a class."""
    labels = tasks.dataset.test.y
    nothing = torch.zeros(len(tasks.dataset.train), CLASSES)
    return Table(scores=torch.cat([nothing, torch.tensor(rows)[labels]]))


SCORES = [  # best of all, best of the own task, by class; tasks are (0 1), (2 3), (4 5)
    [9.0, 1.0, 0.0, 0.0, 0.0, 0.0],  # 0: always right
    [5.0, 4.0, 0.0, 0.0, 0.0, 9.0],  # 1: never right
    [8.0, 0.0, 7.0, 0.0, 0.0, 0.0],  # 2: right among its task alone
    [0.0, 0.0, 0.0, 6.0, 9.0, 0.0],  # 3: right until class 4 has been seen
    [0.0, 9.0, 0.0, 0.0, 3.0, 2.0],  # 4: right among its task alone
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],  # 5: always right
]


def by_metric(found, metric):
    return {m.on_task: m.value for m in found if m.metric == metric}


@pytest.mark.parametrize(
    ("after_task", "class_il"),
    [(-1, {}), (0, {0: 0.5}), (1, {0: 0.5, 1: 0.5}), (2, {0: 0.5, 1: 0.0, 2: 0.5})],
)
def test_the_classifier_of_hand_made_scores(after_task, class_il):
    tasks = scenario()
    evaluator = classifier.build(classifier.Config())
    found = measured(evaluator, table_of_scores(tasks, SCORES), tasks, after_task=after_task)
    assert by_metric(found, "accuracy") == class_il
    assert by_metric(found, "accuracy_task_il") == {0: 0.5, 1: 1.0, 2: 1.0}
    assert {m.n for m in found} == {40}


@pytest.mark.parametrize("after_task", range(TASKS))
def test_class_il_never_exceeds_task_il(after_task):
    tasks = scenario()
    evaluator = classifier.build(classifier.Config())
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        scores = torch.randint(-3, 3, (CLASSES * 80, CLASSES), generator=rng).float()  # with ties
        found = measured(evaluator, Table(scores=scores), tasks, after_task=after_task)
        class_il, task_il = by_metric(found, "accuracy"), by_metric(found, "accuracy_task_il")
        assert all(class_il[task] <= task_il[task] for task in class_il)


def test_scores_of_classes_not_yet_seen_do_not_count():
    tasks = scenario()
    evaluator = classifier.build(classifier.Config())
    loud = torch.tensor(SCORES)
    loud[:, 4:] += 100
    found = measured(evaluator, table_of_scores(tasks, loud.tolist()), tasks, after_task=1)
    assert by_metric(found, "accuracy") == {0: 0.5, 1: 0.5}

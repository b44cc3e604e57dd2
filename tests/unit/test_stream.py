"""Streams: every image once an epoch, counted, and nothing shown that was not asked for."""

import itertools

import pytest
import torch

from harness.data.base import Dataset, Split, Traits
from harness.data.scenarios import split_classes
from harness.data.stream import RevealedTask, Tally, TaskBatches, training_rows
from harness.seeds import generator
from methods.base import Signal

NOTHING = frozenset()
ALL = frozenset(Signal)
ATTRIBUTES = {
    "position": [{Signal.BOUNDARIES}, {Signal.TASK_ID}],
    "classes": [{Signal.LABELS, Signal.BOUNDARIES}, {Signal.LABELS, Signal.TASK_ID}],
    "data": [{Signal.TASK_DATA}, {Signal.ALL_DATA}],
}


@pytest.fixture
def scenario():
    """Six classes in three tasks, 23 training images each; the pixel of an image is its row."""
    y = torch.arange(6).repeat(23)
    train = Split(torch.arange(len(y)).to(torch.uint8).view(-1, 1, 1, 1), y)
    names, traits = tuple("abcdef"), Traits((0.5,), (0.5,))
    return split_classes(
        Dataset("toy", train, train, names, traits),
        num_tasks=3,
        distribution="regular",
        order="seeded",
        validation=0.0,
        seed=1,
    )


@pytest.fixture
def stream(scenario):
    def make(**changes):
        settings = {
            "split": scenario.dataset.train,
            "rows": scenario.tasks[1].train,
            "size": 10,
            "epochs": 1,
            "drop_last": False,
            "reveal": NOTHING,
            "position": 1,
            "rng": generator(0, "order"),
            "tally": Tally(),
        }
        return TaskBatches(**{**settings, **changes})

    return make


def subsets():
    counts = range(len(Signal) + 1)
    chosen = itertools.chain.from_iterable(itertools.combinations(Signal, n) for n in counts)
    return [frozenset(signals) for signals in chosen]


def indices(batches):
    return [batch.index.tolist() for batch in batches]


def seen(scenario, signals, position=1):
    return RevealedTask(scenario, scenario.tasks[position], frozenset(signals), Tally())


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("size", [1, 10, 23, 46, 50])
def test_every_image_comes_exactly_once_an_epoch(scenario, stream, size, epochs):
    found = [*itertools.chain(*indices(stream(size=size, epochs=epochs)))]
    rows = sorted(scenario.tasks[1].train.tolist())
    for epoch in range(epochs):
        assert sorted(found[epoch * 46 : (epoch + 1) * 46]) == rows
    assert len(found) == epochs * 46


def test_every_epoch_and_every_seed_has_an_order_of_its_own(stream):
    first, second = indices(stream(size=46, epochs=2))
    (other,) = indices(stream(size=46, rng=generator(1, "order")))
    (again,) = indices(stream(size=46))
    assert first == again
    assert first != second
    assert first != other


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("size", [1, 10, 23, 45, 46, 47, 100])
def test_a_stream_has_the_length_it_says(stream, size, drop_last):
    batches = stream(size=size, epochs=2, drop_last=drop_last)
    assert len(indices(batches)) == len(batches)


def test_an_incomplete_last_batch_is_dropped_if_asked(stream):
    def sizes(**changes):
        return [len(found) for found in indices(stream(**changes))]

    assert sizes() == [10, 10, 10, 10, 6]
    assert sizes(drop_last=True) == [10, 10, 10, 10]
    assert sizes(drop_last=True, size=23, epochs=2) == [23] * 4


@pytest.mark.parametrize("size", [47, 1000])
def test_an_incomplete_batch_is_kept_if_it_is_all_there_is(stream, size):
    found = indices(stream(size=size, drop_last=True, epochs=2))
    assert [len(batch) for batch in found] == [46, 46]


def test_images_drawn_are_counted_as_they_are_drawn(stream):
    tally = Tally()
    counts = []
    for _ in stream(tally=tally, epochs=2, drop_last=True):
        counts.append(tally.samples)  # noqa: PERF401 - one after the other
    assert counts == [10, 20, 30, 40, 50, 60, 70, 80]


def test_a_batch_holds_the_images_of_its_rows(scenario, stream):
    train = scenario.dataset.train
    for batch in stream(reveal=ALL):
        assert batch.x.dtype == torch.uint8
        assert torch.equal(batch.x, train.x[batch.index])
        assert torch.equal(batch.labels(), train.y[batch.index])
        assert batch.task == 1


def test_what_a_stream_shows_does_not_change_its_order(stream):
    assert indices(stream(reveal=ALL)) == indices(stream(reveal=NOTHING))


@pytest.mark.parametrize("signals", subsets(), ids=lambda s: "+".join(sorted(s)) or "nothing")
def test_a_signal_that_was_not_asked_for_is_hidden(scenario, stream, signals):
    batch = next(iter(stream(reveal=signals)))
    assert (batch.y is not None) == (Signal.LABELS in signals)
    assert (batch.task is not None) == (Signal.TASK_ID in signals)
    task = seen(scenario, signals)
    for attribute, sufficient in ATTRIBUTES.items():
        if any(signals >= enough for enough in sufficient):
            assert getattr(task, attribute) is not None
        else:
            with pytest.raises(RuntimeError, match=f"{attribute}.*declare Signal"):
                getattr(task, attribute)


def test_labels_that_are_hidden_are_an_error_that_says_what_to_declare(stream):
    with pytest.raises(RuntimeError, match=r"Signal\.LABELS"):
        next(iter(stream())).labels()


def test_data_of_a_task_come_without_labels_unless_these_are_declared(scenario):
    assert seen(scenario, {Signal.TASK_DATA}).data.y is None
    data = seen(scenario, {Signal.TASK_DATA, Signal.LABELS}).data
    assert set(data.labels().tolist()) == {2, 3}
    assert torch.equal(data.index, scenario.tasks[1].train)


def test_further_batches_of_a_task_show_no_more_than_the_stream(scenario):
    task = seen(scenario, {Signal.TASK_DATA})
    batch = next(iter(task.batches(5, epochs=1, rng=generator(0, "phase"))))
    assert batch.y is None
    assert batch.task is None
    with pytest.raises(RuntimeError, match="TASK_DATA"):
        seen(scenario, {Signal.LABELS}).batches(5, epochs=1, rng=generator(0, "phase"))


def test_further_batches_of_a_task_are_counted_with_the_stream(scenario):
    task = seen(scenario, {Signal.TASK_DATA})
    list(task.batches(7, epochs=3, rng=generator(0, "phase")))
    assert task.tally.samples == 3 * 46


def test_the_stream_of_an_upper_reference_grows_by_a_task_each_time(scenario):
    everything = frozenset({Signal.ALL_DATA})
    for task in scenario.tasks:
        rows = training_rows(scenario, task, everything)
        wanted = torch.cat([t.train for t in scenario.tasks[: task.position + 1]])
        assert torch.equal(rows, wanted)
        assert len(rows) == 46 * (task.position + 1)
        assert torch.equal(training_rows(scenario, task, ALL - everything), task.train)
        assert torch.equal(seen(scenario, everything, task.position).data.index, wanted)


def test_a_single_last_image_joins_the_batch_before_it(stream):
    batches = stream(rows=torch.arange(21))
    assert [len(batch.index) for batch in batches] == [10, 11]
    assert len(batches) == 2
    dropping = stream(rows=torch.arange(21), drop_last=True)
    assert [len(batch.index) for batch in dropping] == [10, 10]
    assert [len(batch.index) for batch in stream(rows=torch.arange(1))] == [1]
    assert [len(batch.index) for batch in stream(rows=torch.arange(3), size=1)] == [1, 1, 1]

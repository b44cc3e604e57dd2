"""Long-tailed data sets: how many images each class keeps, and which."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.assembly import build_scenario
from harness.data.base import DataError, Dataset, Split, Traits
from harness.data.entries import dataset_component, dataset_entry
from harness.data.imbalance import Imbalance, long_tailed
from harness.errors import UserError
from harness.execute import Setup
from harness.grid import expand
from harness.inline import run_inline
from harness.spec import Component
from harness.store import Store
from harness.suite import load_suite

CPU = torch.device("cpu")
SUITE = """
protocol: class_incremental
methods: [er]
datasets: [{entry}]
num_tasks: [5]
seeds: [0]
set:
  epochs: 1
  batch_size: 32
  buffer_size: 40
  backbone.hidden: [16]
resources: {{cpu: 1}}
"""
LONG_TAIL = "{name: digits, set: {imbalance: {max: 50, min: 5}}}"


def sizes(dataset):
    return dataset.train.y.bincount(minlength=dataset.num_classes).tolist()


def dataset(per_class=(30, 30, 30, 30), domains=False):
    """Each image has its own number in its pixels; the classes come in turn."""
    labels = [c for turn in range(max(per_class)) for c, n in enumerate(per_class) if turn < n]
    y = torch.tensor(labels)
    x = torch.arange(len(y)).to(torch.uint8).view(-1, 1, 1, 1)
    train = Split(x, y, torch.arange(len(y)) % 3 if domains else None)
    names = tuple("abcdefgh"[: len(per_class)])
    return Dataset("hand-made", train, Split(x, y), names, Traits((0.5,), (0.5,)))


def tail(imbalance, *, order=(0, 1, 2, 3), seed=0, of=None):
    return long_tailed(of or dataset(), imbalance, order=order, seed=seed)


def test_a_thousand_to_five_over_a_hundred_classes_are_19_104_images():
    found = Imbalance(1000, 5).sizes(100)
    assert sum(found) == 19_104
    assert found[::10] == (1000, 586, 343, 201, 118, 69, 40, 24, 14, 8)
    assert found[-1] == 5
    assert list(found) == sorted(found, reverse=True)


@pytest.mark.parametrize(("largest", "smallest", "classes"), [(50, 5, 10), (7, 7, 4), (9, 1, 2)])
def test_the_largest_and_the_smallest_class_have_the_sizes_asked_for(largest, smallest, classes):
    found = Imbalance(largest, smallest).sizes(classes)
    assert len(found) == classes
    assert (found[0], found[-1]) == (largest, smallest)
    steps = [larger / smaller for larger, smaller in itertools.pairwise(found)]
    ratio = (largest / smallest) ** (1 / (classes - 1))
    assert all(abs(step / ratio - 1) < 0.2 for step in steps)  # up to rounding


def test_a_single_class_has_the_largest_size():
    assert Imbalance(8, 2).sizes(1) == (8,)


def test_ordered_ranks_follow_the_class_order():
    order = (2, 0, 3, 1)
    found = sizes(tail(Imbalance(27, 1, ranks="ordered"), order=order))
    assert [found[label] for label in order] == [27, 9, 3, 1]


def test_shuffled_ranks_depend_on_the_seed():
    drawn = {tuple(sizes(tail(Imbalance(27, 1), seed=seed))) for seed in range(12)}
    assert {tuple(sorted(found)) for found in drawn} == {(1, 3, 9, 27)}
    assert len(drawn) > 3


def pixels(dataset):
    """The training images that are kept."""
    return dataset.train.images(torch.arange(len(dataset.train)))


def test_the_same_seed_keeps_the_same_images_and_another_one_others():
    profile = Imbalance(27, 1, ranks="ordered")
    first, again, other = (tail(profile, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(pixels(first), pixels(again))
    assert sizes(first) == sizes(other)
    assert not torch.equal(pixels(first), pixels(other))


def test_images_kept_are_the_set_s_own_once_each_in_their_order_with_their_labels():
    whole = dataset(domains=True)
    found = tail(Imbalance(20, 2), of=whole)
    rows = pixels(found).flatten().long()
    assert found.train.x is whole.train.x  # no image is copied
    assert (rows.diff() > 0).all()
    assert torch.equal(found.train.y, whole.train.y[rows])
    assert torch.equal(found.train.domain, whole.train.domain[rows])
    assert found.test is whole.test
    assert len(whole.train) == 120  # untouched


def test_any_image_of_a_class_can_be_kept():
    kept = torch.cat([pixels(tail(Imbalance(15, 15), seed=seed)) for seed in range(40)])
    assert len(kept.unique()) == 120


def test_a_class_with_too_few_images_is_an_error_that_names_it():
    scarce = dataset((30, 30, 8, 30))
    profile = Imbalance(27, 1, ranks="ordered")
    message = "hand-made: imbalance may ask for 9 training images of class 'c', which has 8"
    with pytest.raises(DataError, match=message):
        tail(profile, of=scarce, order=(0, 2, 1, 3))
    assert sizes(tail(profile, of=scarce)) == [27, 9, 3, 1]


@pytest.mark.parametrize("wrong", [{"max": 4, "min": 5}, {"max": 4, "min": 0}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="imbalance: 1 <= min <= max is needed"):
        Imbalance(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max": 50, "mni": 5}, "unknown key 'mni'; did you mean 'min'"),
        ({"max": 50}, "min: field required"),
        ({"max": 50, "min": "5"}, "min: input should be a valid integer"),
        ({"max": 5, "min": 50}, "1 <= min <= max"),
        (
            {"max": 50, "min": 5, "ranks": "random"},
            "ranks: input should be 'shuffled' or 'ordered'",
        ),
        ({"max": 50, "min": 5, "kind": "step"}, "kind: input should be 'exponential'"),
        (7, "expected a mapping"),
    ],
)
def test_a_wrong_setting_names_the_data_set_and_the_key(wrong, message):
    with pytest.raises(UserError, match=message) as error:
        dataset_entry("digits", {"imbalance": wrong}, where="here.yaml")
    assert str(error.value).startswith("here.yaml: digits: imbalance:")


def test_the_settings_of_an_entry_are_complete():
    given = {"imbalance": {"max": 50, "min": 5}}
    full = {"max": 50, "min": 5, "kind": "exponential", "ranks": "shuffled"}
    assert dataset_component("digits", given, where="tests").settings == {"imbalance": full}
    again = dataset_component("digits", {"imbalance": full}, where="tests")
    assert again == dataset_component("digits", given, where="tests")
    assert dataset_entry("digits", given, where="tests").imbalance == Imbalance(50, 5)


@pytest.fixture
def plan(tmp_path):
    def make(entry, *assignments):
        path = tmp_path / "tiny.yaml"
        path.write_text(SUITE.format(entry=entry))
        return expand(load_suite(path, assignments))[0]

    return make


def test_trials_without_imbalance_have_the_ids_that_they_have_without_that_setting(plan):
    (bare,), (empty,) = plan("digits"), plan("{name: digits, set: {imbalance: null}}")
    without = replace(bare.spec, dataset=Component("digits", {}))  # digits has no other settings
    assert "imbalance" not in json.dumps(bare.spec.to_json())
    assert bare.trial_id == empty.trial_id == without.trial_id
    (uneven,) = plan(LONG_TAIL)
    assert uneven.trial_id != bare.trial_id


def test_the_long_tail_is_the_same_for_all_methods_of_a_seed(plan):
    first, second = plan(LONG_TAIL, "methods=[er, finetune]")
    images = [
        pixels(build_scenario(t.spec, Path("/nowhere"), CPU).dataset) for t in (first, second)
    ]
    assert torch.equal(*images)


@pytest.mark.parametrize("ranks", ["ordered", "shuffled"])
def test_a_scenario_has_the_long_tail_in_its_class_order(plan, ranks):
    entry = f"{{name: digits, set: {{imbalance: {{max: 50, min: 5, ranks: {ranks}}}}}}}"
    (trial,) = plan(entry, "class_order=seeded", "seeds=[3]")
    scenario = build_scenario(trial.spec, Path("/nowhere"), CPU)
    found = sizes(scenario.dataset)
    assert sorted(found, reverse=True) == list(Imbalance(50, 5).sizes(10))
    assert (found == sorted(found, reverse=True)) == (ranks == "ordered")
    assert sum(len(task.train) for task in scenario.tasks) == sum(found)
    assert len(scenario.dataset.test) == 454  # all of them


class Quiet:
    """Watches a run and says nothing."""

    def started(self, trial_id): ...
    def progressed(self, progress): ...
    def ended(self, outcome): ...


def test_a_suite_with_a_long_tail_runs(plan, tmp_path):
    trials = plan(LONG_TAIL, "evaluators=[classifier, {name: shots, many: 30, few: 10}]")
    setup = Setup(tmp_path / "results", tmp_path / "data", {"revision": None, "dirty": None})
    store = Store(setup.results)
    store.create()
    (outcome,) = run_inline(trials, setup, Quiet())
    assert outcome.status == "done", outcome
    rows = store.read(trials[0].trial_id)[0].to_pandas()
    assert rows["samples_seen"].max() == sum(Imbalance(50, 5).sizes(10))
    last = rows[(rows["evaluator"] == "shots") & (rows["after_task"] == 4)].set_index("condition")
    assert set(last.index) == {"many", "medium", "few", "overall"}
    groups = last.loc[["many", "medium", "few"]]
    assert groups["n"].sum() == last.loc["overall", "n"] == 454
    mean = (groups["value"] * groups["n"]).sum() / 454
    assert last.loc["overall", "value"] == pytest.approx(mean)


def test_a_long_tail_that_the_set_cannot_give_fails_when_its_data_are_loaded(plan):
    (trial,) = plan("{name: digits, set: {imbalance: {max: 5000, min: 5}}}")
    with pytest.raises(DataError, match="digits: imbalance may ask for 5000 training images"):
        build_scenario(trial.spec, Path("/nowhere"), CPU)

"""Accuracy on corrupted images, of classifiers whose answers are known."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pictures import prepared, write_picture
from tiny import difference, finish, numbers, tiny_run

from harness.config import settings
from harness.data import shelf
from harness.data.base import DataError, Dataset, Split, Traits
from harness.data.corruptions.registry import CORRUPTIONS
from harness.data.scenarios import split_classes
from harness.data.sets import imagenet100
from harness.errors import UserError
from harness.evaluators import corruption
from harness.measure import Checkpoint

LEVELS = (20, 90, 160, 230)
PER_CLASS = 6


class Brightness:
    """Guesses the class whose level is nearest to an image's mean; notes what it was shown."""

    def __init__(self):
        self.shown = []

    def predict(self, x):
        self.shown.append(x.clone())
        mean = x.float().mean((1, 2, 3))
        return -(mean[:, None] - torch.tensor(LEVELS, dtype=torch.float)).abs()


def levels():
    """Two tasks of two classes; every image is of one level, that of its class."""
    y = torch.arange(4).repeat(PER_CLASS)
    x = torch.tensor(LEVELS, dtype=torch.uint8)[y].view(-1, 1, 1, 1).repeat(1, 1, 12, 12)
    split = Split(x, y)
    dataset = Dataset("levels", split, split, tuple("abcd"), Traits((0.5,), (0.5,)))
    return split_classes(
        dataset, num_tasks=2, distribution="regular", order="natural", validation=0.0, seed=0
    )


def checkpoint(scenario, after_task=1, *, method=None, seed=0, split="test"):
    method = method or Brightness()
    return Checkpoint(method, scenario, after_task, split=split, seed=seed, cost=lambda: None)


def measured(view, **config):
    return list(corruption.build(corruption.Config(**config)).evaluate(view))


def values(found):
    return {(m.metric, m.condition): m.value for m in found}


def by_hand(severity, classes):
    """Accuracy of `Brightness` on brightened levels."""
    seen = LEVELS[:classes]
    shifted = [min(255, level + round(25.5 * severity)) for level in seen]
    guesses = [min(range(classes), key=lambda k: abs(seen[k] - level)) for level in shifted]
    return sum(guess == label for label, guess in enumerate(guesses)) / classes


@pytest.mark.parametrize(("after_task", "classes"), [(0, 2), (1, 4)])
def test_brightness_misleads_who_looks_at_nothing_else(after_task, classes):
    found = values(measured(checkpoint(levels(), after_task), corruptions=("brightness",)))
    expected = [by_hand(severity, classes) for severity in range(1, 6)]
    assert expected[0] == 1
    assert expected[1] < 1
    for severity, value in enumerate(expected, start=1):
        assert found["accuracy", f"brightness/{severity}"] == value
    assert found["accuracy", "brightness"] == pytest.approx(sum(expected) / 5)
    assert found["clean_accuracy", None] == 1
    assert found["mean_corruption_accuracy", None] == found["accuracy", "brightness"]
    assert found["relative_drop", None] == pytest.approx(1 - sum(expected) / 5)


def test_only_classes_seen_compete():
    """Of the two dark classes, brightened by half, all images look like the second."""
    found = values(measured(checkpoint(levels(), 0), corruptions=("brightness",), severities=(5,)))
    assert found["accuracy", "brightness/5"] == 0.5
    found = values(measured(checkpoint(levels(), 1), corruptions=("brightness",), severities=(5,)))
    assert found["accuracy", "brightness/5"] == 0.25


def test_what_keeps_the_mean_costs_nothing():
    found = values(measured(checkpoint(levels()), corruptions=("contrast", "pixelate")))
    assert set(found.values()) == {1.0, 0.0}
    assert found["relative_drop", None] == 0


def test_there_is_a_row_for_every_corruption_and_severity_and_each_mean():
    names, severities = ("fog", "contrast"), (4, 1)
    found = measured(checkpoint(levels()), corruptions=names, severities=severities)
    accuracies = {m.condition: m.value for m in found if m.metric == "accuracy"}
    each = {name: [accuracies[f"{name}/{s}"] for s in severities] for name in names}
    assert accuracies.keys() == {f"{n}/{s}" for n in names for s in severities} | set(names)
    for name in names:
        assert accuracies[name] == pytest.approx(sum(each[name]) / 2)
    totals = {m.metric: m.value for m in found if m.condition is None}
    assert totals.keys() == {"mean_corruption_accuracy", "clean_accuracy", "relative_drop"}
    mean = sum(map(sum, each.values())) / 4
    assert totals["mean_corruption_accuracy"] == pytest.approx(mean)
    assert {(m.on_task, m.n) for m in found} == {(-1, 4 * PER_CLASS)}


def test_all_corruptions_at_all_severities_is_the_default():
    config = corruption.Config()
    assert config.corruptions == tuple(CORRUPTIONS)
    assert len(config.variants()) == 75


def shown(view, **config):
    """The corrupted images that the method saw, in one tensor a variant, without the clean ones."""
    evaluator = corruption.build(corruption.Config(**config))
    evaluator.prepare(view.scenario, None)
    list(evaluator.evaluate(view))
    per_variant = len(view.method.shown) // (len(config["severities"]) + 1)
    batches = view.method.shown[per_variant:]
    return [
        torch.cat(batches[start : start + per_variant])
        for start in range(0, len(batches), per_variant)
    ]


@pytest.mark.parametrize("most", [None, 7])
def test_images_are_corrupted_alike_after_every_task_and_for_every_method(most):
    scenario = levels()
    config = {"corruptions": ("gaussian_noise",), "severities": (2, 5), "max_images": most}
    early = shown(checkpoint(scenario, 0), **config)
    late = shown(checkpoint(scenario, 1), **config)
    again = shown(checkpoint(scenario, 1, method=Brightness()), **config)
    for first, second, third in zip(early, late, again, strict=True):
        assert len(first) < len(second)
        assert torch.equal(second[: len(first)], first)
        assert torch.equal(second, third)
    assert not torch.equal(late[0], late[1])
    other = shown(checkpoint(scenario, 1, seed=1), **config)
    assert not torch.equal(late[0], other[0])


def test_noise_does_not_depend_on_what_else_is_measured():
    alone = shown(checkpoint(levels()), corruptions=("snow",), severities=(3,))
    among = shown(checkpoint(levels()), corruptions=("snow",), severities=(1, 3))
    assert torch.equal(alone[0], among[1])


def test_a_long_task_is_corrupted_in_blocks_of_its_own_noise(monkeypatch):
    monkeypatch.setattr(corruption, "EVAL_BATCH", 4)
    view = checkpoint(levels(), 0)
    (found,) = shown(view, corruptions=("gaussian_noise",), severities=(5,))
    assert [len(x) for x in view.method.shown] == [4, 4, 4] * 2
    test = view.scenario.dataset.test.x[view.scenario.tasks[0].test]
    noise = found.int() - test.int()
    assert torch.equal(test[:4], test[4:8])
    assert not torch.equal(noise[:4], noise[4:8])


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ([10, 10, 10], None, [10, 10, 10]),
        ([10, 10, 10], 9, [3, 3, 3]),
        ([10, 10, 10], 10, [3, 3, 4]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([10, 1, 4], 9, [4, 1, 4]),
        ([5, 5], 99, [5, 5]),
    ],
)
def test_a_subset_is_as_balanced_over_tasks_as_it_can_be(sizes, total, expected):
    assert corruption.quotas(sizes, total) == expected


def test_a_subset_is_seeded_and_of_the_tasks_seen():
    config = {"corruptions": ("contrast",), "severities": (1,), "max_images": 6}
    assert {m.n for m in measured(checkpoint(levels(), 0), **config)} == {3}
    assert {m.n for m in measured(checkpoint(levels(), 1), **config)} == {6}
    rows = [
        [block.rows.tolist() for block in corruption._blocks(checkpoint(levels(), 1, seed=s), 6)]
        for s in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]
    labels = levels().dataset.test.y
    for seen, chosen in zip(({0, 1}, {2, 3}), rows[0], strict=True):
        assert set(labels[chosen].tolist()) <= seen
        assert len(set(chosen)) == 3
        assert chosen == sorted(chosen)


def test_too_small_a_subset_stops_the_run_before_training():
    evaluator = corruption.build(corruption.Config(max_images=1))
    with pytest.raises(UserError, match="max_images is 1, fewer than the 2 tasks"):
        evaluator.prepare(levels(), None)


def test_the_validation_images_are_corrupted_where_those_are_measured():
    dataset = levels().dataset
    scenario = split_classes(
        dataset, num_tasks=2, distribution="regular", order="natural", validation=0.5, seed=0
    )
    view = checkpoint(scenario, 0, split="validation")
    found = measured(view, corruptions=("contrast",), severities=(5,))
    assert {m.n for m in found} == {len(scenario.tasks[0].validation)}
    assert values(found)["accuracy", "contrast/5"] == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"corruptions": ("gausian_noise",)}, "'gausian_noise'; did you mean 'gaussian_noise'"),
        ({"corruptions": ()}, "corruptions must name at least one, and none twice"),
        ({"corruptions": ("fog", "fog")}, "corruptions must name at least one, and none twice"),
        ({"severities": (0,)}, "severities are numbers from 1 to 5, got 0"),
        ({"severities": (1, 6)}, "severities are numbers from 1 to 5, got 6"),
        ({"severities": (2, 2)}, "severities must name at least one, and none twice"),
        ({"max_images": 0}, "max_images must be at least 1, got 0"),
    ],
)
def test_mistakes_in_settings_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        corruption.Config(**config)
    with pytest.raises(UserError, match=message):
        settings(corruption.Config, config, where="tests")


def test_a_trial_is_measured_the_same_twice_and_trains_as_if_it_were_not():
    use = {"name": "corruption", "corruptions": ["shot_noise", "fog"], "max_images": 50}
    runs = [
        tiny_run("er", evaluators=["classifier", "cost", *extra]) for extra in ([use], [use], [])
    ]
    rows = [finish(run) for run in runs]
    first, second = ([n for n in numbers(r) if n[2] == "corruption"] for r in rows[:2])
    assert first == second
    assert len(first) == 5 * (2 * 6 + 3)
    assert {(n[0], n[6]) for n in first} == {(after, 10 * (after + 1)) for after in range(5)}
    assert difference(runs[0].method.state_dict(), runs[2].method.state_dict()) is None
    plain = [[n for n in numbers(r) if n[2] == "classifier"] for r in (rows[0], rows[2])]
    assert plain[0] == plain[1]


def test_clean_accuracy_of_all_images_is_that_of_the_classifier():
    run = tiny_run("finetune")
    finish(run)
    view = Checkpoint(run.method, run.scenario, 2, split="test", seed=0, cost=lambda: None)
    found = values(measured(view, corruptions=("fog",), severities=(1,)))
    seen = torch.cat([task.test for task in run.scenario.tasks[:3]])
    data = run.scenario.dataset.test
    guesses = run.method.predict(data.x[seen])[:, :6].argmax(1)
    expected = (guesses == data.y[seen]).double().mean().item()
    assert found["clean_accuracy", None] == pytest.approx(expected)


WNIDS = ("n03", "n01", "n07", "n05")


@pytest.fixture
def imagenet(tmp_path):
    """Four classes, their validation images, and two corruptions of all, one in a family's folder.

    The first corruption is a copy of the validation images, the second holds other pictures and
    one more of each class.
    """
    for number, wnid in enumerate(WNIDS):
        for split, count in (("train", 2), ("val", 3)):
            for i in range(count):
                path = tmp_path / "imagenet" / split / wnid / f"{wnid}_{i}.JPEG"
                write_picture(path, 10 * number + i)
        for i in range(4):
            write_picture(
                tmp_path / "imagenet-c" / "weather" / "snow" / "2" / wnid / f"{wnid}_{i}.JPEG",
                100 + 10 * number + i,
            )
    shutil.copytree(tmp_path / "imagenet" / "val", tmp_path / "imagenet-c" / "fog" / "2")
    return tmp_path


def stored_images(dataset, root, corruptions=("fog", "snow"), severities=(2,)):
    """What the evaluator takes for images of the test split, (corruption, severity) by rows."""
    config = corruption.Config(corruptions, severities, source="imagenet_c")
    return corruption._stored(dataset, config, root)


def wnids(root, order=(2, 0, 3, 1), **config):
    settings = {"class_list": WNIDS, "size": 16, "resize": "center_crop", **config}
    dataset = shelf.read("imagenet100", imagenet100.Config(**settings), root)
    return split_classes(
        dataset, num_tasks=2, distribution="regular", order=order, validation=0.0, seed=0
    )


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_stored_images_are_paired_with_the_images_they_were_made_of(imagenet, order):
    dataset = wnids(imagenet, order).dataset
    stored = stored_images(dataset, imagenet)
    rows = torch.tensor([7, 0, 11])
    assert torch.equal(stored.images(("fog", 2), rows), dataset.test.x[rows])
    for label, name in enumerate(dataset.class_names):
        rows = (dataset.test.y == label).nonzero()[:, 0]
        folder = imagenet / "copies" / "val" / name
        folder.mkdir(parents=True)
        source = imagenet / "imagenet-c" / "weather" / "snow" / "2" / name
        for i in range(3):
            shutil.copy(source / f"{name}_{i}.JPEG", folder)
        shutil.copytree(folder, imagenet / "copies" / "train" / name)
        shutil.copytree(imagenet / "copies", imagenet / name / "imagenet")
        only = shelf.read(
            "imagenet100",
            imagenet100.Config(class_list=(name,), size=16, resize="center_crop"),
            imagenet / name,
        )
        assert torch.equal(stored.images(("snow", 2), rows), only.test.x)


def test_stored_images_are_paired_with_rows_in_another_order(imagenet):
    dataset = wnids(imagenet).dataset
    by_label = dataset.test.y.argsort(stable=True)
    assert by_label.tolist() != list(range(12))
    test = Split(dataset.test.x[by_label], dataset.test.y[by_label])
    stored = stored_images(replace(dataset, test=test), imagenet)
    assert torch.equal(stored.images(("fog", 2), torch.arange(12)), test.x)


def test_stored_images_are_decoded_once_for_every_order_of_classes(imagenet):
    stored_images(wnids(imagenet).dataset, imagenet)
    names = prepared(imagenet)
    assert len([name for name in names if name.startswith("imagenet_c-")]) == 1
    stored_images(wnids(imagenet, (3, 2, 1, 0)).dataset, imagenet)
    assert prepared(imagenet) == names


def test_the_evaluator_shows_the_stored_images(imagenet):
    scenario = wnids(imagenet)
    view = checkpoint(scenario, 0)
    config = corruption.Config(
        corruptions=("fog",), severities=(2,), max_images=8, source="imagenet_c"
    )
    evaluator = corruption.build(config)
    evaluator.prepare(scenario, imagenet)
    found = list(evaluator.evaluate(view))
    clean, corrupted = view.method.shown
    assert len(clean) == 4
    assert torch.equal(clean, corrupted)  # here they are copies
    by_name = values(found)
    assert by_name["accuracy", "fog/2"] == by_name["clean_accuracy", None]


def test_stored_test_images_are_no_validation_images(imagenet):
    config = corruption.Config(corruptions=("fog",), severities=(2,), source="imagenet_c")
    evaluator = corruption.build(config)
    scenario = wnids(imagenet)
    evaluator.prepare(scenario, imagenet)
    with pytest.raises(UserError, match="imagenet_c holds test images; set `split: test`"):
        list(evaluator.evaluate(checkpoint(scenario, 0, split="validation")))


def test_missing_stored_images_stop_the_run_before_training_with_the_paths(imagenet):
    dataset = wnids(imagenet).dataset
    with pytest.raises(DataError) as error:
        stored_images(dataset, imagenet, ("fog", "snow", "frost"))
    message = str(error.value)
    assert f"{imagenet / 'imagenet-c'}: lacks frost/2" in message
    assert f"{imagenet / 'imagenet_c'}: no such folder" in message
    assert "ROOT/imagenet-c/<corruption>/<severity>/<class>/*.JPEG" in message
    folder = imagenet / "imagenet-c" / "fog" / "2" / "n05"
    (folder / "n05_2.JPEG").unlink()
    with pytest.raises(DataError, match=r"fog/2/n05: 2 images, but 3 are wanted"):
        stored_images(dataset, imagenet)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"fog/2/n05: no such folder"):
        stored_images(dataset, imagenet)


def test_fewer_test_images_are_paired_with_the_first_files(imagenet):
    dataset = wnids(imagenet, test_per_class=2).dataset
    stored = stored_images(dataset, imagenet, ("fog",))
    assert torch.equal(stored.images(("fog", 2), torch.arange(8)), dataset.test.x)


def test_data_sets_of_other_shapes_have_no_stored_images(imagenet):
    dataset = SimpleNamespace(name="digits", image_shape=(1, 8, 8))
    with pytest.raises(DataError, match="squares of 3 channels, but those of digits are 1x8x8"):
        stored_images(dataset, imagenet)

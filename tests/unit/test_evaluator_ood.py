"""Detection of images of another data set: its numbers against their definitions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lookup import Lookup, checkpoint, found, scenario, values
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny import tiny_trial

from analysis.records import records
from harness import plugins
from harness.config import plain, settings
from harness.data.base import DataError
from harness.data.scenarios import split_classes
from harness.errors import UserError
from harness.evaluators import ood
from harness.execute import Setup, execute
from harness.store import Store

LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def digits():
    module = plugins.find("data set", "digits", where="tests").module
    return module.load(module.Config(), None)


class Pixels(Lookup):
    """Logits that depend on the two pixels of an image alone."""

    weight = torch.tensor([[1.0, 3.0, -2.0, 0.0], [0.5, -1.0, 2.0, 4.0]])

    def class_logits(self, x):
        return x.flatten(1).float() @ self.weight / 128  # exact, so that ties are ties


def prepared(tasks, **config):
    evaluator = ood.build(ood.Config(**{"dataset": "digits", **config}))
    evaluator.prepare(tasks, None)
    return evaluator


def naive_confidence(images, classes):
    """The largest softmax probability among the first classes, image by image."""
    found = []
    for image in images:
        logits = (image.flatten().double() @ Pixels.weight.double() / 128)[:classes].tolist()
        found.append(1 / sum(math.exp(z - max(logits)) for z in logits))
    return found


def naive_auroc(inside, outside):
    wins = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def naive_average_precision(positive, negative):
    """The precision at each threshold, times the recall it adds."""
    total, recall = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        right = sum(score >= threshold for score in positive)
        wrong = sum(score >= threshold for score in negative)
        total += (right / len(positive) - recall) * right / (right + wrong)
        recall = right / len(positive)
    return total


def naive_fpr95(positive, negative):
    thresholds = [t for t in positive if 20 * sum(s >= t for s in positive) >= 19 * len(positive)]
    return sum(score >= max(thresholds) for score in negative) / len(negative)


def separation(inside, outside):
    numbers = ood.separation(np.array(inside, float), np.array(outside, float))
    return {(metric, condition): value for metric, condition, value in numbers}


@pytest.mark.parametrize("seed", range(6))
def test_the_numbers_are_those_of_their_definitions_ties_included(seed):
    rng = np.random.default_rng(seed)
    inside = (rng.integers(2, 10, 40 + seed) / 10).tolist()
    outside = (rng.integers(0, 8, 27) / 10).tolist()
    numbers = separation(inside, outside)
    negative = [-s for s in outside], [-s for s in inside]
    assert numbers["auroc", None] == pytest.approx(naive_auroc(inside, outside))
    assert numbers["aupr", None] == pytest.approx(naive_average_precision(*negative))
    assert numbers["fpr95", None] == pytest.approx(naive_fpr95(inside, outside))
    assert numbers["fpr95", "ood_positive"] == pytest.approx(naive_fpr95(*negative))


def test_scores_that_are_apart_and_scores_that_are_all_the_same():
    apart = separation([0.8, 0.9], [0.1, 0.2, 0.3])
    assert apart["auroc", None] == apart["aupr", None] == 1
    assert apart["fpr95", None] == apart["fpr95", "ood_positive"] == 0
    same = separation([0.5] * 3, [0.5])
    assert same["auroc", None] == 0.5
    assert same["aupr", None] == 1 / 4  # the share of OOD images
    assert same["fpr95", None] == same["fpr95", "ood_positive"] == 1


def test_one_of_twenty_images_may_lie_below_the_threshold():
    inside = [0.1, *np.linspace(0.5, 0.9, 19)]
    assert separation(inside, [0.45, 0.5, 0.2, 0.6])["fpr95", None] == 2 / 4
    assert separation(inside[1:], [0.45, 0.5, 0.2, 0.6])["fpr95", None] == 2 / 4  # all 19 needed
    two = [0.1, 0.2, *np.linspace(0.5, 0.9, 18)]
    assert separation(two, [0.45, 0.5, 0.2, 0.6])["fpr95", None] == 4 / 4
    twins = np.arange(20) / 20  # whose curve is a line, of which no point may be left out
    assert separation(twins, twins)["fpr95", None] == 19 / 20


@pytest.mark.parametrize(("after_task", "classes", "images"), [(0, 2, 6), (1, 4, 12)])
def test_the_classes_seen_compete_on_the_images_of_the_tasks_seen(after_task, classes, images):
    tasks = scenario(LABELS, tasks=2)
    numbers, details = found(prepared(tasks), Pixels(), tasks, after_task=after_task)
    inside = naive_confidence(tasks.dataset.test.x[:images], classes)
    outside = naive_confidence(ood.reshaped(digits().test.x, (1, 1, 2)), classes)
    # A last bit decides some ties.
    assert values(numbers, "auroc") == pytest.approx({-1: naive_auroc(inside, outside)}, abs=2e-3)
    labels = [1] * images + [0] * len(outside)
    by_sklearn = roc_auc_score(labels, inside + outside)
    assert values(numbers, "auroc") == pytest.approx({-1: by_sklearn}, abs=2e-3)
    assert values(numbers, "fpr95") == pytest.approx({-1: naive_fpr95(inside, outside)}, abs=5e-3)
    assert values(numbers, "mean_confidence", "id") == pytest.approx({-1: np.mean(inside)})
    assert values(numbers, "mean_confidence", "ood") == pytest.approx({-1: np.mean(outside)})
    sizes = {key: m.n for key, m in numbers.items()}
    assert sizes["auroc", -1, None] == images + len(outside)
    assert sizes["mean_confidence", -1, "id"] == images
    assert sizes["mean_confidence", -1, "ood"] == len(outside)
    assert len(numbers) == 6
    columns = details["ood"]
    assert len(columns["id"]) == 50
    for name, scores in (("id", inside), ("ood", outside)):
        counts = [0] * 50
        for score in scores:
            counts[min(int(score * 50), 49)] += 1
        assert columns[name] == pytest.approx(np.array(counts) * 50 / len(scores)), name
    assert columns["left"] == pytest.approx(np.arange(50) / 50)
    assert columns["right"] == pytest.approx(np.arange(1, 51) / 50)


def test_a_single_class_is_always_certain():
    tasks = scenario([0, 0, 1, 1], tasks=2)
    numbers, details = found(prepared(tasks, bins=4), Pixels(), tasks, after_task=0)
    assert values(numbers, "auroc") == {-1: 0.5}
    assert values(numbers, "mean_confidence", "ood") == {-1: 1.0}
    assert details["ood"]["id"].tolist() == [0, 0, 0, 4]


def test_confidence_is_that_of_class_logits_and_not_of_scores():
    tasks = scenario(LABELS, tasks=2)
    assert Pixels().tables["scores"] is None  # so that asking for them would fail
    found(prepared(tasks), Pixels(), tasks)


def test_no_measured_images_give_nothing():
    tasks = scenario(LABELS, tasks=2, validation=0.1)
    assert found(prepared(tasks), Pixels(), tasks, split="validation") == ({}, {})


def test_evaluating_before_preparing_is_a_mistake():
    tasks = scenario(LABELS, tasks=2)
    with pytest.raises(AssertionError, match="prepare comes first"):
        list(ood.build(ood.Config("digits")).evaluate(checkpoint(Pixels(), tasks)))


def random_images(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)


def test_images_of_the_same_shape_stay_as_they_are():
    x = random_images(3, 2, 5, 4)
    assert ood.reshaped(x, (2, 5, 4)) is x


def test_grey_becomes_colour_by_repeating_it():
    x = random_images(600, 1, 3, 4)  # more than a batch
    wide = ood.reshaped(x, (3, 3, 4))
    assert wide.shape == (600, 3, 3, 4)
    assert torch.equal(wide, x.repeat(1, 3, 1, 1))


def test_colour_becomes_grey_and_sides_become_others_as_in_pillow():
    x = random_images(4, 3, 30, 20)
    for shape in ((1, 30, 20), (3, 12, 16), (3, 45, 20), (1, 8, 33)):
        ours = ood.reshaped(x, shape)
        assert ours.shape == (4, *shape)
        assert ours.dtype == torch.uint8
        for image, made in zip(x, ours, strict=True):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            if shape[0] == 1:
                picture = picture.convert("L")
            picture = picture.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
            wanted = torch.from_numpy(np.array(picture).reshape(*shape[1:], shape[0])).int()
            assert (made.permute(1, 2, 0).int() - wanted).abs().max() <= 1  # Pillow rounds twice


def test_a_flat_image_stays_flat():
    for level in (0, 77, 255):
        x = torch.full((1, 3, 8, 8), level, dtype=torch.uint8)
        assert ood.reshaped(x, (1, 5, 13)).unique().tolist() == [level]


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(DataError, match=r"images of 3 channels cannot become ones of \(2, 8, 8\)"):
        ood.reshaped(random_images(2, 3, 8, 8), (2, 8, 8))


def test_so_many_images_are_the_same_in_every_trial_and_of_many_classes():
    tasks = scenario(LABELS, tasks=2)
    few = [prepared(tasks, max_images=40)._images for _ in range(2)]
    assert torch.equal(*few)
    assert len(few[0]) == 40
    every = ood.reshaped(digits().test.x, (1, 1, 2))
    assert {tuple(x.flatten().tolist()) for x in few[0]} <= {
        tuple(x.flatten().tolist()) for x in every
    }
    assert not torch.equal(few[0], every[:40])
    assert torch.equal(prepared(tasks, max_images=10**6)._images, every)


def test_the_trial_s_own_data_set_is_refused_unless_its_classes_are_others():
    shared = {"num_tasks": 5, "distribution": "regular", "order": "natural", "validation": 0.0}
    own = split_classes(digits(), **shared, seed=0)
    message = "digits is the trial's own data set, with 10 classes in common, such as '0'"
    with pytest.raises(DataError, match=message):
        prepared(own)
    others = tuple(f"other {name}" for name in own.dataset.class_names)
    prepared(replace(own, dataset=replace(own.dataset, class_names=others)))
    prepared(replace(own, dataset=replace(own.dataset, name="another set")))


def test_a_set_that_is_not_there_is_an_error_that_says_how_to_get_it(tmp_path):
    evaluator = ood.build(ood.Config("imagenet_o"))
    with pytest.raises(DataError, match="imagenet_o was not found"):
        evaluator.prepare(scenario(LABELS, tasks=2), tmp_path)


def test_a_name_and_a_mapping_are_the_same_settings_with_every_default():
    glyphs = {"name": "glyphs100_easy"}
    short, mapped = ood.Config("glyphs100_easy"), ood.Config(glyphs)
    full = {**glyphs, "classes": 100, "per_class": 500, "test_per_class": None, "seed": 0}
    assert plain(short) == plain(mapped) == {"dataset": full, "max_images": None, "bins": 50}
    assert settings(ood.Config, plain(short), where="tests") == short


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "dataset: field required"),
        ({"dataset": "digit"}, "dataset: unknown data set 'digit'; did you mean 'digits'"),
        ({"dataset": {"classes": 3}}, "dataset: expected a name"),
        ({"dataset": {"name": "digits", "clases": 3}}, "unknown key 'clases'"),
        ({"dataset": {"name": "digits", "imbalance": {"max": 5, "min": 1}}}, "changes no test"),
        ({"dataset": "digits", "max_images": 0}, "max_images must be at least 1, got 0"),
        ({"dataset": "digits", "bins": 0}, "bins must be at least 1, got 0"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        plugins.component("evaluator", "ood", wrong, where="tests")


def test_a_trial_stores_the_numbers_and_the_histograms(tmp_path):
    glyphs = {"name": "glyphs100_easy", "classes": 3, "per_class": 10}
    uses = ["classifier", {"name": "ood", "dataset": glyphs}]
    trial = tiny_trial("finetune", evaluators=uses)
    setup = Setup(tmp_path / "results", tmp_path / "data", {"revision": None, "dirty": None})
    Store(setup.results).create()
    outcome = execute(trial, setup, lambda _: None)
    assert outcome.status == "done", outcome
    rows = Store(setup.results).read(trial.trial_id)[0].to_pandas()
    rows = rows[rows["evaluator"] == "ood"]
    assert (rows.groupby("after_task").size() == 6).all()
    assert rows["after_task"].nunique() == 5
    assert rows["value"].between(0, 1).all()
    assert set(rows[rows["condition"] == "ood"]["n"]) == {6}
    histogram = records(setup.results, trial.trial_id, "ood")
    assert len(histogram) == 5 * 50
    for name in ("id", "ood"):
        sums = histogram.groupby("after_task")[name].mean()
        assert sums.to_numpy() == pytest.approx(np.ones(5))

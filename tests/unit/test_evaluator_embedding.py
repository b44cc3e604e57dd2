"""The map of features: which images it shows, and what its silhouettes say."""

import numpy as np
import pytest
import torch
from lookup import Lookup, checkpoint, found, scenario, values

from harness.config import settings
from harness.errors import UserError
from harness.evaluators import embedding

LABELS = [label for _ in range(9) for label in range(4)]


def clusters(noise, *, dims=6, count=36, seed=0):
    """Features of `count` images, of the labels 0 to 3 in turn, around far-off centres."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.eye(dims)[torch.arange(count) % 4]
    return centres + noise * torch.randn(count, dims, generator=rng)


def run(features, *, labels=LABELS, tasks=2, after_task=None, seed=0, **config):
    evaluator = embedding.build(embedding.Config(**config))
    method, images = Lookup(features=features), scenario(labels, tasks=tasks)
    return found(evaluator, method, images, after_task=after_task, seed=seed)


def naive_silhouette(points, labels):
    def mean_distance(i, label):
        others = [j for j, own in enumerate(labels) if own == label and j != i]
        return np.mean([np.linalg.norm(points[i] - points[j]) for j in others])

    found = []
    for i, label in enumerate(labels):
        a = mean_distance(i, label)
        b = min(mean_distance(i, other) for other in set(labels) - {label})
        found.append((b - a) / max(a, b))
    return np.mean(found)


def test_the_silhouettes_are_the_naive_ones():
    features = clusters(0.4)
    numbers, details = run(features)
    columns = details["embedding"]
    scaled = (features / features.norm(dim=1, keepdim=True)).double().numpy()[columns["image"]]
    flat = np.stack([columns["x"], columns["y"]], 1).astype(float)
    labels = columns["label"].tolist()
    naive = naive_silhouette(scaled, labels), naive_silhouette(flat, labels)
    assert values(numbers, "silhouette") == pytest.approx({-1: naive[0]}, abs=1e-6)
    assert values(numbers, "silhouette", "map") == pytest.approx({-1: naive[1]}, abs=1e-5)
    assert numbers["silhouette", -1, None].n == 36


def test_clusters_that_lie_apart_lie_apart_in_the_map():
    numbers, details = run(clusters(0.01), perplexity=5.0)
    assert numbers["silhouette", -1, None].value > 0.9
    assert numbers["silhouette", -1, "map"].value > 0.5
    columns = details["embedding"]
    flat = np.stack([columns["x"], columns["y"]], 1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=2) + 1e9 * np.eye(len(flat))
    assert (columns["label"][distances.argmin(1)] == columns["label"]).mean() > 0.9


def test_noise_has_no_silhouette():
    rng = torch.Generator().manual_seed(5)
    numbers, _ = run(torch.randn(36, 6, generator=rng))
    assert abs(numbers["silhouette", -1, None].value) < 0.1


def test_lengths_of_features_do_not_matter():
    features = clusters(0.4)
    longer = features * 2.0 ** torch.arange(36).remainder(5)[:, None]
    ours, theirs = run(features), run(longer)
    assert ours[0] == theirs[0]
    for name, column in ours[1]["embedding"].items():
        assert column.tolist() == theirs[1]["embedding"][name].tolist(), name


def test_each_class_seen_has_as_many_images_and_they_stay_the_same():
    shown = []
    for after_task in (0, 1):
        columns = run(clusters(0.4), after_task=after_task, per_class=3)[1]["embedding"]
        assert np.bincount(columns["label"]).tolist() == [3] * (2 * after_task + 2)
        assert (columns["task"] == columns["label"] // 2).all()
        assert (columns["image"] % 4 == columns["label"]).all()
        shown.append(set(columns["image"].tolist()))
    assert shown[0] < shown[1]
    other = run(clusters(0.4), seed=1, per_class=3)[1]["embedding"]
    assert set(other["image"].tolist()) != shown[1]


def test_another_method_shows_the_same_images():
    pictures = [
        run(clusters(0.4, seed=seed), per_class=3)[1]["embedding"]["image"].tolist()
        for seed in (0, 1)
    ]
    assert pictures[0] == pictures[1]


def test_a_class_with_fewer_images_shows_all_of_them():
    labels = [0] * 8 + [1] * 2 + [2] * 6
    columns = run(clusters(0.4), labels=labels, tasks=1, per_class=3)[1]["embedding"]
    assert np.bincount(columns["label"]).tolist() == [3, 2, 3]
    assert columns["image"].tolist()[3:5] == [8, 9]


def test_the_chosen_images_are_the_first_of_each_class_in_one_draw():
    images = scenario(LABELS, tasks=2)
    here = checkpoint(Lookup(), images, after_task=0)
    places = embedding.chosen(here, 4).tolist()
    draw = torch.randperm(36, generator=here.fixed_rng("embedding")).tolist()
    labels, task = here.labels("test").tolist(), here.task("test").tolist()
    naive = []
    for label in (0, 1):
        naive += [place for place in draw if labels[place] == label and task[place] == 0][:4]
    assert places == sorted(naive)


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ([0] * 12, set()),  # a single class
        ([0, 1, 2, 3, 4, 5], set()),  # each image the only one of its class
        ([0, 0, 0, 1, 1], {("silhouette", -1, None), ("silhouette", -1, "map")}),
    ],
)
def test_a_silhouette_needs_two_classes_and_two_images_of_one(labels, keys):
    numbers, details = run(clusters(0.4), labels=labels, tasks=1)
    assert set(numbers) == keys
    assert len(details["embedding"]["x"]) == len(labels)
    assert np.isfinite(details["embedding"]["x"]).all()


@pytest.mark.parametrize("dims", [1, 2, 80])
def test_features_of_any_dimension_have_a_map(dims):
    rng = torch.Generator().manual_seed(0)
    # Of length 1, a single dimension has two values alone.
    columns = run(torch.randn(80, dims, generator=rng), labels=LABELS * 2)[1]["embedding"]
    assert np.isfinite(columns["x"]).all()
    assert np.isfinite(columns["y"]).all()


def test_three_images_or_features_that_do_not_vary_have_no_map():
    assert run(clusters(0.4), labels=[0, 0, 1], tasks=1) == ({}, {})
    assert run(torch.full((36, 5), 0.3)) == ({}, {})
    assert run(torch.zeros(36, 5)) == ({}, {})


@pytest.mark.parametrize("wrong", [{"per_class": 0}, {"perplexity": 0.5}])
def test_a_setting_that_does_not_fit_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"{name} must be at least 1"):
        settings(embedding.Config, wrong, where="tests")

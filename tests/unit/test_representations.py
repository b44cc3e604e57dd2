"""Geometry of classes, agreement with joint training, drift: against loops and known answers."""

import itertools

import numpy as np
import pytest
from scipy.special import gamma
from scipy.stats import ortho_group, wasserstein_distance

from analysis.representations.agreement import (
    centroid_cosines,
    correlation,
    linear_cka,
    mean_difference,
    rotated,
    rotated_centroid_cosines,
)
from analysis.representations.class_measures import (
    MEASURES,
    class_cosines,
    class_distances,
    class_kl,
    class_kl_neighbours,
    class_wasserstein,
    class_wasserstein_sliced,
)
from analysis.representations.drift import centroid_displacement, shared_tsne

SIZES = (7, 5, 9)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def classes(rng, sizes=SIZES, width=4):
    """Float32 features of classes of different sizes and means, in a shuffled order."""
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    features = rng.standard_normal((len(labels), width)) + 3 * labels[:, None] + 1
    return features.astype(np.float32), labels


def naive(features, labels, of):
    """The mean of `of(z, w)` over all pairs of every two classes, one pair at a time."""
    found = np.zeros((labels.max() + 1,) * 2)
    for c, d in np.ndindex(found.shape):
        ours, theirs = features[labels == c].astype(float), features[labels == d].astype(float)
        found[c, d] = np.mean([of(z, w) for z in ours for w in theirs])
    return found


def two_copies(rng, shift, n=40):
    """Two classes of the same cloud (n, D), the second one shifted."""
    cloud = rng.standard_normal((n, len(shift)))
    return np.concatenate([cloud, cloud + shift]), np.repeat([0, 1], n)


def test_cosines_are_those_of_all_pairs_one_by_one(rng):
    features, labels = classes(rng)
    expected = naive(features, labels, lambda z, w: z @ w / (np.linalg.norm(z) * np.linalg.norm(w)))
    np.testing.assert_allclose(class_cosines(features, labels), expected, rtol=1e-6)


def test_a_vector_of_zeros_has_the_cosine_zero():
    features, labels = np.array([[1.0, 0], [0, 0], [1, 0]]), np.array([0, 0, 1])
    np.testing.assert_allclose(class_cosines(features, labels), [[0.25, 0.5], [0.5, 1]])


def test_distances_are_those_of_all_pairs_one_by_one(rng):
    features, labels = classes(rng)
    expected = naive(features, labels, lambda z, w: np.linalg.norm(z - w))
    np.testing.assert_allclose(class_distances(features, labels), expected, rtol=1e-6)


def test_distances_keep_their_digits_far_from_the_origin(rng):
    features, labels = two_copies(rng, np.array([1e-3, 0]))
    near = class_distances(features, labels)
    np.testing.assert_allclose(class_distances(features + 1e6, labels), near, rtol=1e-6)


def test_the_wasserstein_distance_is_that_of_the_best_of_all_pairings(rng):
    features, labels = classes(rng, sizes=(5, 5))
    ours, theirs = features[labels == 0].astype(float), features[labels == 1].astype(float)
    best = min(
        np.linalg.norm(ours - theirs[list(order)], axis=1).mean()
        for order in itertools.permutations(range(5))
    )
    assert class_wasserstein(features, labels)[0, 1] == pytest.approx(best, rel=1e-6)


def test_the_wasserstein_distance_on_a_line_is_scipys(rng):
    labels = np.repeat([0, 1], 30)
    line = np.concatenate([rng.standard_normal(30), rng.exponential(2, 30)])
    expected = wasserstein_distance(line[:30], line[30:])
    for measure in (class_wasserstein, class_wasserstein_sliced):
        assert measure(line[:, None], labels)[0, 1] == pytest.approx(expected)


def test_the_wasserstein_distance_of_a_shifted_set_is_the_shift(rng):
    shift = np.array([3.0, 0, 4])
    np.testing.assert_allclose(
        class_wasserstein(*two_copies(rng, shift)), [[0, 5], [5, 0]], atol=1e-6
    )


def test_the_sliced_distance_of_a_shifted_set_is_the_share_that_a_line_sees(rng):
    shift = np.array([3.0, 0, 4, 0, 0, 0])
    found = class_wasserstein_sliced(*two_copies(rng, shift), projections=20_000)
    # E|u_1| of a unit vector u in D dimensions, each line seeing |u . shift|.
    share = gamma(3) / (np.sqrt(np.pi) * gamma(3.5))
    assert found[0, 1] == pytest.approx(5 * share, rel=0.02)
    np.testing.assert_allclose(np.diag(found), 0)
    assert share == pytest.approx(np.sqrt(2 / (np.pi * 6)), rel=0.05)


@pytest.mark.parametrize("measure", [class_wasserstein, class_wasserstein_sliced])
def test_samples_are_drawn_by_the_seed_and_of_the_same_images_in_two_networks(rng, measure):
    features, labels = classes(rng, sizes=(40, 60, 50))
    first = measure(features, labels, n=10)
    np.testing.assert_array_equal(measure(features, labels, n=10), first)
    assert (measure(features, labels, n=10, seed=1) != first)[~np.eye(3, dtype=bool)].all()
    np.testing.assert_allclose(measure(2 * features, labels, n=10), 2 * first, rtol=1e-5)


def test_no_more_images_than_asked_for_are_transported(rng):
    features, labels = classes(rng, sizes=(30, 20))
    pairs = naive(features, labels, lambda z, w: np.linalg.norm(z - w))
    one = class_wasserstein(features, labels, n=1)
    between = np.linalg.norm(
        features[labels == 0][:, None].astype(float) - features[labels == 1], axis=-1
    )
    assert np.isclose(between, one[0, 1], rtol=1e-5).any()
    assert one[0, 1] != pytest.approx(pairs[0, 1])


def test_the_divergence_of_gaussians_is_the_closed_form_and_has_a_direction():
    """Two classes with means 0 and 2 and variances 1 and 4 on a line."""
    features = np.array([[-1.0], [1], [0], [4]])
    found = class_kl(features, np.array([0, 0, 1, 1]), shrinkage=1e-12)
    forth = np.log(2) + (1 + 4) / 8 - 0.5
    back = -np.log(2) + (4 + 4) / 2 - 0.5
    np.testing.assert_allclose(found, [[0, forth], [back, 0]], atol=1e-9)


def test_the_divergence_of_gaussians_is_that_of_their_sampled_densities(rng):
    labels = np.repeat([0, 1], 50)
    features = np.concatenate([rng.normal(0, 1, (50, 3)), rng.normal(1, [1, 2, 3], (50, 3))])
    own = np.stack([features[labels == c].var(0) for c in (0, 1)])
    variance = 0.9 * own + 0.1 * own.mean()
    mean = np.stack([features[labels == c].mean(0) for c in (0, 1)])
    drawn = rng.normal(mean[0], np.sqrt(variance[0]), (200_000, 3))

    def log_density(c):
        return (-np.log(variance[c]) / 2 - (drawn - mean[c]) ** 2 / (2 * variance[c])).sum(1)

    sampled = (log_density(0) - log_density(1)).mean()
    assert class_kl(features, labels)[0, 1] == pytest.approx(sampled, rel=0.02)


def test_a_feature_that_is_silent_in_a_class_leaves_the_divergence_finite(rng):
    features, labels = classes(rng)
    features[labels == 1, 0] = 0
    features[:, 1] = 0
    found = class_kl(features, labels)
    assert np.isfinite(found).all()
    assert (found[~np.eye(3, dtype=bool)] > 0).all()


def test_features_that_never_vary_have_no_divergence():
    assert np.isnan(class_kl(np.ones((4, 2)), np.array([0, 0, 1, 1]))).all()


@pytest.mark.parametrize("shrinkage", [0.0, 1.5])
def test_a_divergence_needs_some_shrinkage_and_at_most_all(rng, shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        class_kl(*classes(rng), shrinkage=shrinkage)


def test_the_divergence_of_neighbours_is_the_estimator_written_out(rng):
    features, labels = classes(rng)
    k = 3
    ours, theirs = features[labels == 2].astype(float), features[labels == 0].astype(float)
    total = 0.0
    for i, z in enumerate(ours):
        own = sorted(np.linalg.norm(z - w) for j, w in enumerate(ours) if j != i)[k - 1]
        total += np.log(sorted(np.linalg.norm(z - w) for w in theirs)[k - 1] / own)
    expected = 4 / len(ours) * total + np.log(len(theirs) / (len(ours) - 1))
    assert class_kl_neighbours(features, labels, k=k)[2, 0] == pytest.approx(expected, rel=1e-5)


def test_the_divergence_of_neighbours_approaches_that_of_two_gaussians(rng):
    """From N(0, 1) to N(1, 4) in two dimensions, and between N(0, 1) and N(1, 1)."""
    n = 3000
    labels = np.repeat([0, 1, 2], n)
    drawn = [rng.normal(mean, std, (n, 2)) for mean, std in ((0, 1), (1, 2), (1, 1))]
    found = class_kl_neighbours(np.concatenate(drawn), labels)
    wider = 2 * (np.log(2) + (1 + 1) / 8 - 0.5)
    assert found[0, 1] == pytest.approx(wider, abs=0.1)
    assert found[0, 2] == pytest.approx(1, abs=0.1)
    assert found[2, 0] == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(np.diag(found), 0)


def test_neighbours_at_the_same_place_leave_the_divergence_finite(rng):
    features, labels = classes(rng, sizes=(10, 10))
    features[labels == 0] = features[labels == 0][0]
    assert np.isfinite(class_kl_neighbours(features, labels)).all()
    assert (class_kl_neighbours(np.zeros((20, 3)), labels) == np.log(10 / 9)).sum() == 2


def test_neighbours_need_more_images_than_their_number(rng):
    with pytest.raises(ValueError, match="more than 5 images of every class"):
        class_kl_neighbours(*classes(rng, sizes=(9, 5)))


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_is_repeatable_and_leaves_its_input_alone(rng, name):
    features, labels = classes(rng, sizes=(8, 9, 10))
    before = features.copy()
    first = MEASURES[name](features, labels)
    assert first.shape == (3, 3)
    np.testing.assert_array_equal(MEASURES[name](features, labels), first)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"kl", "kl_neighbours"}))
def test_distances_and_cosines_are_symmetric(rng, name):
    found = MEASURES[name](*classes(rng))
    np.testing.assert_allclose(found, found.T, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"cosine", "kl", "kl_neighbours"}))
def test_distances_do_not_change_under_rotation_and_shift(rng, name):
    features, labels = classes(rng, width=6)
    moved = features @ ortho_group.rvs(6, random_state=1) + 5
    tolerance = {"wasserstein_sliced": 0.1}.get(name, 1e-5)
    np.testing.assert_allclose(
        MEASURES[name](moved, labels), MEASURES[name](features, labels), rtol=tolerance, atol=1e-6
    )


@pytest.mark.parametrize(
    ("features", "labels"),
    [((4, 2), 3), ((4,), 4), ((0, 2), 0)],
    ids=["lengths", "dimensions", "nothing"],
)
def test_shapes_that_do_not_fit_are_refused(features, labels):
    with pytest.raises(ValueError, match=r"features \(N, D\) and labels \(N,\)"):
        class_cosines(np.ones(features), np.zeros(labels, dtype=int))


def test_difference_and_correlation_pass_over_the_diagonal(rng):
    joint = rng.standard_normal((4, 4))
    joint += joint.T
    model = 2 * joint + 1
    np.fill_diagonal(model, 1e9)
    upper = np.triu_indices(4, 1)
    assert mean_difference(model, joint) == pytest.approx(np.abs(joint[upper] + 1).mean())
    assert correlation(model, joint) == pytest.approx(1)
    assert correlation(-model, joint) == pytest.approx(-1)


def test_the_correlation_is_pearsons_over_the_upper_triangle(rng):
    model, joint = (x + x.T for x in rng.standard_normal((2, 5, 5)))
    upper = np.triu_indices(5, 1)
    expected = np.corrcoef(model[upper], joint[upper])[0, 1]
    assert correlation(model, joint) == pytest.approx(expected)


def test_both_directions_of_a_divergence_count():
    joint = np.array([[0, 1.0, 2], [3, 0, 4], [5, 6, 0]])
    model = joint.copy()
    model[2, 0] += 6
    assert mean_difference(model, joint) == pytest.approx(1)


def test_a_correlation_needs_three_classes_and_differences():
    assert np.isnan(correlation(np.ones((2, 2)), np.eye(2)))
    assert np.isnan(correlation(np.ones((3, 3)), np.arange(9.0).reshape(3, 3)))
    assert np.isnan(mean_difference(np.ones((1, 1)), np.ones((1, 1))))


def test_centroid_cosines_are_those_of_the_means(rng):
    features, labels = classes(rng)
    joint = rng.standard_normal(features.shape)
    for c, found in enumerate(centroid_cosines(features, joint, labels)):
        ours, theirs = features[labels == c].mean(0), joint[labels == c].mean(0)
        expected = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_network_agrees_with_itself_at_any_scale(rng):
    features, labels = classes(rng)
    np.testing.assert_allclose(centroid_cosines(features, 3 * features, labels), 1, rtol=1e-6)
    assert linear_cka(features, 3 * features + 2) == pytest.approx(1)


def test_a_rotation_hides_agreement_from_cosines_but_not_from_their_companions(rng):
    features, labels = classes(rng, sizes=(20, 30, 25))
    turned = features @ -ortho_group.rvs(4, random_state=1)
    assert (np.abs(centroid_cosines(features, turned, labels)) < 0.99).all()
    np.testing.assert_allclose(rotated(features, turned), turned, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rotated_centroid_cosines(features, turned, labels), 1, rtol=1e-6)
    assert linear_cka(features, turned) == pytest.approx(1)


def test_no_rotation_in_the_plane_is_closer_than_the_one_found(rng):
    features, target = rng.standard_normal((2, 30, 2))

    def distance(turned):
        return np.linalg.norm(turned - target)

    angles = np.linspace(0, 2 * np.pi, 721)
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    flips = [turn @ np.diag([1, -1]) for turn in turns]
    best = min(distance(features @ turn) for turn in (*turns, *flips))
    assert distance(rotated(features, target)) <= best + 1e-9
    assert distance(rotated(features, target)) == pytest.approx(best, abs=1e-3)


def test_spaces_of_different_size_have_no_cosine_but_both_companions(rng):
    features, labels = classes(rng)
    wider = np.concatenate([features, np.zeros_like(features)], axis=1)
    wider = wider @ ortho_group.rvs(8, random_state=2)
    for pair in ((features, wider), (wider, features)):
        assert np.isnan(centroid_cosines(*pair, labels)).all()
        np.testing.assert_allclose(rotated_centroid_cosines(*pair, labels), 1, rtol=1e-5)
        assert linear_cka(*pair) == pytest.approx(1)


def test_cka_is_the_normalised_product_of_centred_grams(rng):
    x, y = rng.standard_normal((12, 3)) + 1, rng.standard_normal((12, 5))
    centre = np.eye(12) - 1 / 12
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(x, y) == pytest.approx(expected)
    assert np.isnan(linear_cka(x, np.ones((12, 2))))


def test_a_displacement_is_the_way_from_where_a_class_was_first_known():
    """Class 0 is known at once and moves by (3, 4) a stage; class 1 from stage 1, by (0, 1)."""
    labels = np.array([0, 1, 0, 1])
    start = np.array([[0.0, 0], [10, 10], [2, 2], [20, 20]])
    steps = np.where(labels[:, None] == 0, [3.0, 4], [0, 1])
    features = np.stack([start + stage * steps for stage in range(3)])
    found = centroid_displacement(features, labels, np.array([0, 1]))
    np.testing.assert_allclose(found, [[0, np.nan], [5, 0], [10, 1]])


def test_one_plane_holds_all_stages(rng):
    """What did not move between two stages stays where it was, far from what did."""
    still = rng.standard_normal((2, 30, 8))
    features = np.stack([still[0], still[0] + 1e-3, still[0] + 50])
    plane = shared_tsne(features, perplexity=10)
    assert plane.shape == (3, 30, 2)
    np.testing.assert_array_equal(shared_tsne(features, perplexity=10), plane)
    moved = np.linalg.norm(plane - plane[0], axis=-1).mean(1)
    assert moved[1] < 0.2 * moved[2]


def test_a_plane_needs_more_vectors_than_its_perplexity(rng):
    with pytest.raises(ValueError, match="perplexity 30 needs more than 20 vectors"):
        shared_tsne(rng.standard_normal((2, 10, 4)))

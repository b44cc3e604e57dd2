"""Tests of differences: against brute force and other libraries, and honest about few seeds."""

import itertools

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from analysis.stats import (
    average_ranks,
    holm,
    interquartile_mean,
    paired_p,
    seeds_needed,
    smallest_p,
    stratified_interval,
)
from analysis.verdicts import Rules, no_verdict, verdict


def brute_force(differences):
    """The share of sign patterns whose mean is at least as far from 0."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    means = np.abs((signs * differences).mean(axis=1))
    return (means >= abs(np.mean(differences)) - 1e-12).mean()


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_sign_flip_test_counts_every_pattern(n):
    differences = np.random.default_rng(n).normal(0.5, 1, (4, n))
    expected = [brute_force(line) for line in differences]
    assert paired_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "p"), [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)]
)
def test_the_smallest_p_is_that_of_differences_of_one_sign(n, p):
    assert smallest_p(n) == p
    assert paired_p([np.arange(1.0, n + 1)])[0] == pytest.approx(p)


def test_the_t_test_is_that_of_scipy():
    a, b = np.random.default_rng(0).normal(0, 1, (2, 6))
    assert paired_p([a - b], "t")[0] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert paired_p([[0.0, 0.0], [1.0, 1.0]], "t").tolist() == [1.0, 0.0]


def test_one_seed_says_nothing():
    assert paired_p([[3.0]]).tolist() == [1.0]
    assert paired_p([[3.0]], "t").tolist() == [1.0]


def test_many_seeds_are_drawn_and_always_the_same():
    differences = np.random.default_rng(0).normal(0.1, 1, (2, 30))
    first = paired_p(differences)
    assert (first == paired_p(differences)).all()
    assert first == pytest.approx(paired_p(differences, "t"), abs=0.03)


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03], [0.5, 0.5], [0.02], [0.001, 0.9, 0.01, 0.02]])
def test_holm_is_that_of_statsmodels(p):
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_seeds_that_are_needed_are_the_fewest_that_suffice():
    assert [seeds_needed(count) for count in (1, 5, 15)] == [6, 8, 10]
    for count in (1, 5, 15):
        assert (
            count * smallest_p(seeds_needed(count))
            < 0.05
            <= count * smallest_p(seeds_needed(count) - 1)
        )


def scores(*values):
    return dict(enumerate(values))


EIGHT = np.random.default_rng(0).normal(0, 0.1, (3, 8))


def test_a_clear_difference_is_found_and_a_small_one_is_not():
    best = EIGHT[0] + 2
    near = best + 0.1 * np.tile([1, -1], 4) - 0.01  # now above, now below
    found = verdict(
        {"best": scores(*best), "near": scores(*near), "far": scores(*EIGHT[2])}, "best"
    )
    assert not found.too_few
    assert found.tied("near")
    assert not found.tied("far")
    far = next(one for one in found.differences if one.label == "far")
    assert far.mean == pytest.approx((EIGHT[2] - EIGHT[0]).mean() - 2)
    assert far.low < far.mean < far.high < 0
    assert far.adjusted == 2 * far.p == 2 * 2 / 256


def test_differences_are_paired_by_seed():
    hard = np.linspace(0, 50, 8)  # seeds differ by far more than methods
    found = verdict({"best": scores(*(hard + 1)), "worse": scores(*hard)}, "best")
    assert not found.tied("worse")
    assert found.differences[0].p == 2 / 256
    turned = verdict({"best": scores(*(hard + 1)), "worse": scores(*hard[::-1])}, "best")
    assert turned.tied("worse")


def test_only_seeds_that_both_have_are_compared():
    found = verdict({"best": {0: 5.0, 1: 6.0, 9: 0.0}, "other": {1: 4.0, 0: 4.0, 7: 99.0}}, "best")
    assert (found.differences[0].n, found.differences[0].mean) == (2, -1.5)


def test_too_few_seeds_are_said_in_place_of_a_verdict():
    three = {name: scores(*(level + EIGHT[0][:3])) for name, level in (("a", 9.0), ("b", 0.0))}
    found = verdict(three, "a")
    assert not found.tied("b")
    assert found.too_few
    assert no_verdict([found]) == (
        "No verdict on differences: with 3 seeds the exact sign-flip test of differences paired by "
        "seed cannot reach p < 0.05 (at best 0.25); 6 seeds could."
    )


def test_more_rivals_need_more_seeds():
    many = {f"m{i}": scores(*(EIGHT[0][:6] - i)) for i in range(6)}
    text = no_verdict([verdict(many, "m0")])
    assert "(at best 0.031 before correction for 5 comparisons); 8 seeds could." in text
    able = verdict({name: many[name] for name in ("m0", "m1")}, "m0")
    assert not able.too_few
    assert no_verdict([able]) == ""
    assert "No verdict on differences of some cells" in no_verdict([able, verdict(many, "m0")])


def test_a_rival_of_few_seeds_does_not_silence_the_others():
    values = {"best": scores(9.0, 9.1, 9.2), "far": scores(0.0, 0.3, 0.1), "new": {1: 8.0}}
    found = verdict(values, "best", Rules(test="t", unequal=True))
    assert [one.label for one in found.too_few] == ["new"]
    assert not found.tied("new")  # it could not have been found worse
    far = next(one for one in found.differences if one.label == "far")
    assert far.adjusted < 0.05
    assert "No verdict on differences of some cells: with 1 seed the t-test" in no_verdict([found])


def test_the_t_test_may_be_asked_for():
    three = {"a": scores(9.0, 9.1, 9.2), "b": scores(0.0, 0.3, 0.1)}
    assert verdict(three, "a", Rules(test="t")).too_few == []
    assert not verdict(three, "a", Rules(test="t")).tied("b")


def test_the_interquartile_mean_forgets_the_ends():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == 3.5


def test_a_stratified_interval_covers_and_depends_on_its_generator_alone():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        strata = [rng.normal(level, 1, 10) for level in (0, 10, 20, 30)]
        low, high = stratified_interval(strata, np.random.default_rng(1), resamples=300)
        covered += low <= 15 <= high
    assert covered >= 50
    again = [stratified_interval([[1, 2, 3], [4, 6]], np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(ValueError, match="without a score"):
        stratified_interval([[1.0], []], np.random.default_rng(0))


def test_resampling_stays_within_its_benchmark():
    low, high = stratified_interval([[0.0] * 3, [100.0] * 3], np.random.default_rng(0))
    assert low == high == 50.0  # mixed up, some samples would hold more of one benchmark


def test_ranks_share_ties_and_turn_with_the_metric():
    table = [[3.0, 2.0, 1.0], [5.0, 5.0, 1.0]]
    assert average_ranks(table, higher_is_better=True).tolist() == [1.25, 1.75, 3.0]
    assert average_ranks(table, higher_is_better=False).tolist() == [2.75, 2.25, 1.0]

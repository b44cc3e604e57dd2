"""Statistics of a few seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.stats import spread, t_interval


def test_the_standard_deviation_is_the_samples():
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    assert found.std == pytest.approx(math.sqrt(5 / 3))  # 2.25 + .25 + .25 + 2.25 = 5, over 4 - 1
    assert found.n == 4


def test_one_value_has_no_spread():
    found = spread([0.7])
    assert (found.mean, found.n) == (0.7, 1)
    assert math.isnan(found.std)
    assert all(math.isnan(bound) for bound in t_interval([0.7]))


def test_no_value_has_no_mean():
    found = spread([math.nan])
    assert math.isnan(found.mean)
    assert found.n == 0


def test_undefined_values_do_not_count():
    assert spread([1.0, math.nan, 3.0]) == spread([1.0, 3.0])


def test_the_interval_of_three_seeds_is_two_and_a_half_deviations_wide_each_side():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0)
    assert (high - low) / 2 == pytest.approx(2.484, abs=1e-3)  # t(0.975, 2) / sqrt(3) = 2.484


def test_a_higher_level_gives_a_wider_interval():
    narrow, wide = t_interval([1.0, 2.0, 3.0], 0.9), t_interval([1.0, 2.0, 3.0], 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)


def test_the_tables_spread_is_this_one():
    values = pd.Series(np.random.default_rng(1).random(5))
    assert spread(values).std == pytest.approx(values.std(ddof=1))

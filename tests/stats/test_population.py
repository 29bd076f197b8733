"""The posterior of the variances of a model's arms: its special cases, and its edges."""

import math

import numpy as np
import pytest
from scipy import stats

from undertow.stats.moderation import Prior, moderate
from undertow.stats.population import (
    LOGS,
    SCALES,
    UNLIKE,
    Population,
    Shown,
    _densities,
    freedom_for,
    freedom_of,
    population_of,
)

DRAWS = 40_000


def uniform(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random(DRAWS), rng.random(DRAWS)


def known(unlike):
    """Scale 1 and a known spread over arms: what Smyth's prior is."""
    row = unlike * len(SCALES) + int(np.abs(SCALES).argmin())
    return Population(1.0, np.ones(1), _densities()[row : row + 1])


@pytest.mark.parametrize("unlike", [3, 5, 8])
@pytest.mark.parametrize(("variance", "freedom"), [(0.2, 2.0), (3.0, 2.0), (1.5, 7.0)])
def test_with_a_known_population_the_error_is_smyths_moderated_t(unlike, variance, freedom):
    prior = Prior(freedom_for(UNLIKE[unlike]), 1.0, math.inf)
    wanted = moderate(variance, freedom, prior)
    drawn = known(unlike).variances(Shown(variance, 0.0, freedom), *uniform())
    error = np.sqrt(drawn) * np.random.default_rng(1).standard_normal(DRAWS)
    reach = stats.t.ppf(0.975, wanted.freedom) * math.sqrt(wanted.variance)
    assert np.quantile(np.abs(error), 0.95) == pytest.approx(reach, rel=0.03)
    assert freedom_of(drawn) == pytest.approx(wanted.freedom, rel=0.05)


def test_a_known_population_without_spread_is_its_scale():
    drawn = known(0).variances(Shown(9.0, 0.0, 2.0), *uniform())
    assert drawn == pytest.approx(np.ones(DRAWS)) and math.isinf(freedom_of(np.ones(3)))


def test_noise_is_no_part_of_a_variance():
    shown = [Shown(each, 1.0, 4.0) for each in (0.9, 1.1, 0.8, 1.3)]
    drawn = population_of(shown).variances(shown[0], *uniform())
    assert np.median(drawn) < 0.4
    large = [one._replace(variance=one.variance + 10, freedom=40.0) for one in shown]
    drawn = population_of(large).variances(large[0], *uniform())
    assert np.median(drawn) == pytest.approx(10, rel=0.15)


def test_a_unit_scales_what_an_arm_is_expected_to_show():
    shown = [Shown(unit**2, 0.0, 6.0, unit) for unit in (0.02, 0.2, 0.2, 0.25)]
    drawn = population_of(shown).variances(shown[0], *uniform())
    assert np.median(drawn) == pytest.approx(1.0, rel=0.2)


def test_unlike_arms_keep_more_of_their_own():
    def apart(variances):
        shown = [Shown(each, 0.0, 6.0) for each in variances]
        low, high = (population_of(shown).variances(one, *uniform()) for one in shown[:2])
        return np.median(high) / np.median(low)

    assert apart([0.7, 1.4, 1.0, 1.1, 0.9]) < 1.6
    assert apart([0.01, 4.0, 1.0, 0.2, 20.0]) > 50


def test_one_variance_has_nobody_to_learn_from():
    assert population_of([Shown(1.0, 0.0, 2.0)]) is None
    assert population_of([Shown(0.0, 0.0, 2.0)] * 3) is None


def test_students_that_agree_exactly_are_no_error_of_arithmetic():
    shown = [Shown(each, 0.0, 2.0) for each in (0.0, 1.0, 2.0)]
    drawn = population_of(shown).variances(shown[0], *uniform())
    assert (drawn > 0).all() and np.isfinite(drawn).all()


def test_shares_of_arms_sum_to_one():
    assert _densities().shape == (len(UNLIKE) * len(SCALES), len(LOGS))
    assert _densities().sum(axis=1) == pytest.approx(np.ones(len(_densities())))

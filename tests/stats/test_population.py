"""The posterior of the variances of a model's arms: its special cases, and its edges."""

import math

import numpy as np
import pytest
from scipy import stats
from students import published_students

from undertow.stats import population
from undertow.stats.moderation import Prior, moderate
from undertow.stats.population import (
    LOGS,
    SCALES,
    UNLIKE,
    USUAL,
    Population,
    Shown,
    _densities,
    _likelihood,
    freedom_for,
    freedom_of,
    population_of,
)
from undertow.stats.seeds import Spread, error_of_mean, spread

DRAWS = 40_000


def uniform(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random(DRAWS), rng.random(DRAWS)


def known(unlike):
    """Scale 1 and a known spread over arms: what Smyth's prior is."""
    row = unlike * len(SCALES) + int(np.abs(SCALES).argmin())
    unlike_arms = UNLIKE[unlike : unlike + 1]
    return Population(1.0, np.ones(1), _densities()[row : row + 1], unlike_arms)


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


def test_weighted_draws_are_those_of_the_cautious_prior(monkeypatch):
    shown = [Shown(each, 0.0, 4.0) for each in (0.3, 2.0, 1.0, 1.1, 0.9)]
    usual, (which, within) = population_of(shown), uniform()
    drawn, weights = usual.variances(shown[0], which, within), usual.caution(which)
    assert weights.mean() == pytest.approx(1.0) and weights.std() > 0.2
    monkeypatch.setattr(population, "USUAL", population.CAUTIOUS)
    cautious = population_of(shown)
    wanted = np.log(cautious.variances(shown[0], which, within))
    assert np.average(np.log(drawn), weights=weights) == pytest.approx(wanted.mean(), abs=0.015)
    assert wanted.mean() < np.log(drawn).mean() - 0.05  # the arm keeps more of its own
    assert cautious.caution(which) == pytest.approx(np.ones(DRAWS))


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


def test_published_students_are_as_alike_as_the_prior_takes_them_to_be():
    models = published_students("margin")
    found = np.sum([_unlike_arms(rows) for rows in models], axis=0)
    found -= found.max()
    print(len(models), dict(zip(UNLIKE.round(2).tolist(), found.round(2).tolist(), strict=True)))
    # A 95 % likelihood interval: what is seven times less likely than the best lies outside.
    assert UNLIKE[np.argmax(found)] <= USUAL
    assert (found[UNLIKE > 1.5 * USUAL] < -1.92).all()


def _unlike_arms(rows):
    """Log-likelihood of every UNLIKE, the scale integrated out."""
    spreads = [spread(each) for each in rows]
    shown = [Shown(one.between, one.residual, one.seeds - 1.0) for one in spreads]
    variances, noise, freedom, _ = np.array(shown).T
    reference = float(np.average(variances, weights=freedom))
    likelihood = np.array([_likelihood(one, reference) for one in shown])
    with np.errstate(divide="ignore"):
        logs = np.log(_densities() @ likelihood.T).sum(axis=1).reshape(len(UNLIKE), -1)
    scale = np.exp(SCALES)
    return np.log(np.exp(logs) @ (scale / (scale + noise.mean() / reference)))


# Rates


def of_rate(rate, spread=0.0):
    return Spread(spread * (rate * (1 - rate)) ** 2, 0.0, 3, rate * (1 - rate), rate)


def test_a_rate_near_zero_may_lie_far_above_what_seeds_show_and_hardly_below():
    unit, normal = of_rate(0.02).unit, np.array([-2.0, 0.0, 2.0])
    low, middle, high = error_of_mean(of_rate(0.02, 1.0), np.full(3, unit**2), normal)
    assert -0.02 < low < 0 <= middle < high and high > 2 * -low


def test_counting_the_opposite_verdict_mirrors_the_error_of_a_rate():
    normal = np.linspace(-2, 2, 9)
    for rate in (0.02, 0.3, 0.5):
        unit = of_rate(rate).unit
        one, other = (
            error_of_mean(of_rate(each, 0.5), np.full(9, unit**2), side * normal)
            for each, side in ((rate, 1.0), (1 - rate, -1.0))
        )
        assert one == pytest.approx(-other)


def test_small_spreads_move_a_rate_along_its_slope():
    normal, found = np.linspace(-2, 2, 9), of_rate(0.3)
    errors = error_of_mean(found, np.full(9, 0.01 * found.unit**2), normal)
    assert errors == pytest.approx(0.1 * found.unit / math.sqrt(3) * normal, abs=2e-3)

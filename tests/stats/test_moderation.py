"""Moderated variances: limma's formulas, and what they do at the edges."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from undertow.stats.moderation import Prior, fit_prior, log_moments, moderate, trigamma_inverse


def limma_fit_f_dist(variances, freedom):
    """Smyth 2004, section 6.2, as limma's fitFDist writes it; trigamma inverted by bisection."""
    z = np.log(variances)
    e = z - digamma(freedom / 2) + np.log(freedom / 2)
    mean = e.mean()
    excess = ((e - mean) ** 2).sum() / (len(e) - 1) - polygamma(1, freedom / 2).mean()
    if excess <= 0:
        return math.inf, math.exp(mean)
    half = brentq(lambda y: polygamma(1, y) - excess, 1e-3, 1e6)
    return 2 * half, math.exp(mean + digamma(half) - math.log(half))


@pytest.mark.parametrize("seed", range(6))
def test_the_moments_of_log_variances_are_limmas(seed):
    rng = np.random.default_rng(seed)
    freedom = rng.integers(2, 8, 9).astype(float)
    variances = np.exp(rng.normal(0, 1.5, 9)) * rng.chisquare(freedom) / freedom
    found, wanted = log_moments(variances, freedom), limma_fit_f_dist(variances, freedom)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_alike_variances_have_an_infinite_prior():
    d0, s0 = log_moments(np.array([1.0, 1.1, 0.9, 1.0]), np.full(4, 2.0))
    assert math.isinf(d0) and s0 == pytest.approx(
        limma_fit_f_dist(np.array([1.0, 1.1, 0.9, 1.0]), np.full(4, 2.0))[1]
    )


def test_a_moderated_variance_is_smyths_weighted_mean():
    prior = Prior(4.0, 2.0, 16.0)
    assert moderate(5.0, 2.0, prior) == ((4 * 2.0 + 2 * 5.0) / 6, 6.0)


def test_no_variance_rests_on_more_than_all_arms_have():
    assert moderate(5.0, 2.0, Prior(100.0, 2.0, 16.0)).freedom == 16
    assert moderate(5.0, 2.0, Prior(math.inf, 2.0, 16.0)) == (2.0, 16.0)


def test_unlike_arms_keep_more_of_their_own():
    alike = fit_prior(np.array([0.8, 1.0, 1.3, 1.1]), np.full(4, 4.0))
    unlike = fit_prior(np.array([0.01, 1.0, 30.0, 4.0]), np.full(4, 4.0))
    assert unlike.freedom < 4 < alike.freedom


def test_one_arm_has_nobody_to_learn_from():
    assert fit_prior(np.array([1.0, 0.0]), np.array([2.0, 0.0])) is None
    assert moderate(3.0, 2.0, None) == (3.0, 2.0)


def test_students_that_agree_exactly_are_no_error_of_arithmetic():
    prior = fit_prior(np.array([0.0, 1.0, 2.0]), np.full(3, 2.0))
    assert 0 < prior.freedom < math.inf and prior.variance > 0
    assert fit_prior(np.zeros(3), np.full(3, 2.0)).variance == 0


@pytest.mark.parametrize("y", [1e-4, 0.03, 1.0, 20.0, 1e4])
def test_the_inverse_of_trigamma_is_one(y):
    assert trigamma_inverse(float(polygamma(1, y))) == pytest.approx(y, rel=1e-6)

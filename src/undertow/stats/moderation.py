"""Variances between the students of several arms, moderated by each other.

Three students show their variance with two degrees of freedom. The arms of one model and
readout together show how large such a variance usually is, and how unlike they are: each arm's
own variance is drawn towards that, the more so the more alike the arms are (empirical Bayes,
Smyth 2004). population.py integrates over what is estimated here and is what intervals rest on;
this is its special case, to which it is compared. Variances in, variances out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from undertow.stats.intervals import Floats

SMALLEST = 1e-5  # of the pooled variance: the logarithm of 0 would make all arms unlike


class Prior(NamedTuple):
    """What the arms say together: sigma^2 ~ variance x freedom / chi^2_freedom."""

    freedom: float  # d0; infinite where the arms differ no more than sampling explains
    variance: float  # s0^2
    pooled: float  # degrees of freedom of all arms together: none can rest on more


class Moderated(NamedTuple):
    variance: float
    freedom: float


def log_moments(variances: Floats, freedom: Floats) -> tuple[float, float]:
    """d0 and s0^2 by the moments of the log variances (Smyth 2004, sec. 6.2).

    e = log s^2 - digamma(d/2) + log(d/2) has the mean log s0^2 - digamma(d0/2) + log(d0/2) and
    the variance trigamma(d/2) + trigamma(d0/2). Where the spread is no more than that of
    chi-square variables, d0 is infinite.
    """
    from scipy.special import digamma, polygamma  # a tenth of a second that --help has not

    half = freedom / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    mean = float(logs.mean())
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return math.inf, math.exp(mean)
    d0 = 2 * trigamma_inverse(excess)
    return d0, math.exp(mean + float(digamma(d0 / 2)) - math.log(d0 / 2))


def fit_prior(variances: Floats, freedom: Floats) -> Prior | None:
    """Smyth's prior of these arms; None where fewer than two of them show a variance."""
    used = freedom > 0
    variances, freedom = variances[used], freedom[used]
    pooled = float(freedom.sum())
    if len(variances) < 2:
        return None
    together = float(freedom @ variances) / pooled
    if together == 0:
        return Prior(math.inf, 0.0, pooled)
    return Prior(*log_moments(np.maximum(variances, SMALLEST * together), freedom), pooled)


def moderate(variance: float, freedom: float, prior: Prior | None) -> Moderated:
    """(d0 s0^2 + d s^2) / (d0 + d) with d0 + d degrees of freedom (Smyth 2004, eq. 10).

    No more degrees of freedom than all arms have together: also where d0 is infinite, s0^2
    rests on no more. Without a prior the variance stays as it is.
    """
    if prior is None:
        return Moderated(variance, freedom)
    if math.isinf(prior.freedom):
        return Moderated(prior.variance, prior.pooled)
    both = prior.freedom + freedom
    mean = (prior.freedom * prior.variance + freedom * variance) / both
    return Moderated(mean, min(both, prior.pooled))


def trigamma_inverse(value: float) -> float:
    """The y > 0 with trigamma(y) = value, by Newton on its reciprocal (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-9:
            break
    return y

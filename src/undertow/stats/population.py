"""How variances between students are spread over the arms of a model: a posterior on a grid.

Every arm shows its variance with a few degrees of freedom. All of them together show how large
such a variance usually is and how unlike arms are; given that, each arm's own says where it lies
(hierarchical Bayes; Smyth 2004 has the same model with the spread taken as known). Nothing is
plugged in: scale and spread are integrated over. Knows nothing of prompts, readouts or arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.stats.intervals import Floats
from undertow.stats.moderation import trigamma_inverse

STEP = 0.2  # of the logarithm of a variance
LOGS = np.arange(-70, 51) * STEP  # log variances, from that of all arms together
SCALES = LOGS[::2]  # of the population
UNLIKE = np.arange(16, dtype=np.float64) * 0.11  # standard deviations of log sd over arms
USUAL = 0.2  # median of how unlike arms are, and scale of its half-Cauchy prior
CAUTIOUS = 0.4  # the same, for what is said of all arms at once
NEGLIGIBLE = 1e-4  # of the likeliest point: less is not followed up


class Shown(NamedTuple):
    """An observed variance: (s^2 unit^2 + noise) chi^2_freedom / freedom, of which s^2 is asked."""

    variance: float
    noise: float  # known, and no part of what is asked
    freedom: float
    unit: float = 1.0


class Population(NamedTuple):
    """Posterior of scale and spread of s^2 over arms."""

    reference: float  # the variance at which LOGS is 0
    weights: Floats  # of those points of UNLIKE x SCALES that count, summing to 1
    densities: Floats  # [weights, LOGS] shares of arms at each variance
    unlike: Floats  # [weights] of UNLIKE

    def variances(self, shown: Shown, which: Floats, within: Floats) -> Floats:
        """Draws of s^2 for an arm, from uniform numbers [draws].

        which: picks scale and spread, and belongs to all arms of a draw. within: picks the
        arm's variance given these.
        """
        rows, columns = len(self.weights), len(LOGS)
        chosen = self._chosen(which)
        below = np.cumsum(self.densities * _likelihood(shown, self.reference), axis=1)
        total = below[:, -1:]
        np.divide(below, total, out=below, where=total > 0)
        # All rows in a single sorted line: each takes up one unit of it.
        line = (below + np.arange(rows)[:, None]).ravel()
        found = np.searchsorted(line, chosen + within) - chosen * columns
        drawn: Floats = self.reference * np.exp(LOGS[found.clip(0, columns - 1)])
        return drawn

    def caution(self, which: Floats) -> Floats:
        """Weights [draws], 1 in the mean, that make these draws those of the prior CAUTIOUS.

        Importance sampling: scale and spread are drawn from the posterior of the usual prior, and
        the two posteriors differ by the ratio of their priors alone.
        """
        ratio = _half_cauchy(self.unlike, CAUTIOUS) / _half_cauchy(self.unlike, USUAL)
        drawn = ratio[self._chosen(which)]
        found: Floats = drawn / drawn.mean()
        return found

    def _chosen(self, which: Floats) -> NDArray[np.intp]:
        last = len(self.weights) - 1
        return np.searchsorted(np.cumsum(self.weights), which).clip(max=last)


def population_of(shown: Sequence[Shown]) -> Population | None:
    """The posterior; None where fewer than two variances are shown, or none is above 0.

    Prior: flat in log(scale + noise), as of a variance component (Box and Tiao 1973, sec. 5.2);
    half-Cauchy in the standard deviation of the log spreads (Gelman 2006): arms are mostly
    alike, and where they are not the prior has no say.
    """
    if len(shown) < 2:
        return None
    variances, noise, freedom, unit = np.array(shown).T
    reference = float(freedom @ variances / (freedom @ unit**2))
    if reference == 0:
        return None
    likelihood = np.array([_likelihood(each, reference) for each in shown])
    with np.errstate(divide="ignore"):
        logs = np.log(_densities() @ likelihood.T).sum(axis=1)
    scale = np.exp(SCALES)
    flat = scale / (scale + freedom @ noise / (freedom @ unit**2) / reference)
    prior = _unlike()[:, None] * flat
    weights = np.exp(logs - logs.max()) * prior.ravel()
    counts = weights > NEGLIGIBLE * weights.max()
    shares = weights[counts] / weights[counts].sum()
    unlike = np.repeat(UNLIKE, len(SCALES))[counts]
    return Population(reference, shares, _densities()[counts], unlike)


def freedom_of(variances: Floats) -> float:
    """Degrees of freedom of v / chi^2 that has these draws' spread of the logarithm."""
    spread = float(np.log(variances).var()) if variances.all() else np.inf
    return 2 * trigamma_inverse(spread) if 0 < spread < np.inf else np.inf


def freedom_for(unlike: float) -> float:
    """Degrees of freedom of a population whose log standard deviations have this spread."""
    return 2 * trigamma_inverse(4 * unlike**2)


def _unlike() -> Floats:
    """Prior of UNLIKE, up to a factor; its first point ends the line and counts half."""
    found = _half_cauchy(UNLIKE, USUAL)
    found[0] /= 2
    return found


def _half_cauchy(unlike: Floats, scale: float) -> Floats:
    """Its density, up to a factor."""
    found: Floats = 1 / (1 + (unlike / scale) ** 2)
    return found


def _likelihood(shown: Shown, reference: float) -> Floats:
    """Of every variance in LOGS, up to a factor."""
    variance = reference * np.exp(LOGS) * shown.unit**2 + shown.noise
    ratio = max(shown.variance, 1e-5 * reference * shown.unit**2) / variance
    logs = shown.freedom / 2 * (np.log(ratio) - ratio)
    found: Floats = np.exp(logs - logs.max())
    return found


@lru_cache(maxsize=1)
def _densities() -> Floats:
    """Shares [UNLIKE x SCALES, LOGS] of arms at each variance; no spread is a point."""
    apart = SCALES[:, None] - LOGS
    found = [(np.abs(apart) < STEP / 2).astype(float)]
    for unlike in UNLIKE[1:]:
        logs = freedom_for(float(unlike)) / 2 * (apart - np.exp(np.minimum(apart, 50)))
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        found.append(shares / shares.sum(axis=1, keepdims=True))
    return np.concatenate(found)

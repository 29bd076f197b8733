"""How the student's rate follows the strength (or the teacher's rate): form and threshold.

Binomial maximum likelihood of four forms, compared by AICc under the overdispersion that
the seeds show (docs/statistics.md). This module knows nothing about models or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from undertow.stats.forms import (
    EDGE,
    FORMS,
    Batch,
    Form,
    best_hinge,
    binomial_log_likelihood,
    fit_batch,
    hinge_shape,
    logistic,
    penalties,
)
from undertow.stats.intervals import Estimate

Floats = NDArray[np.float64]
DoseVerdict = Literal["threshold", "continuous", "none", "undecided"]

# Leads in AICc, set by simulation so that a linear truth is called a threshold in less than
# 5 % of studies (docs/statistics.md).
THRESHOLD_LEAD = 3.0
CONTINUOUS_LEAD = 0.0
RISE_LEAD = 2.0
# Above this handicap of the hinge over the line its absence says nothing. One seed of seven
# strengths has 14, three seeds have 3.
LARGEST_HANDICAP = 6.0


@dataclass(frozen=True)
class DosePoint:
    """The students of one strength.

    x grows away from the control: the size of the strength, or the teacher's rate. A hinge
    rests at small x and moves at large x.
    """

    x: float
    successes: tuple[int, ...]  # one per seed
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """One fitted form, over the range of x that was fitted.

    low and high are the fitted rates at the smallest and the largest x; threshold is the x
    at which a hinge starts to move.
    """

    form: Form
    low: float
    high: float
    threshold: float | None
    smallest: float
    largest: float
    log_likelihood: float  # without the binomial coefficients, which no form changes
    aicc: float
    weight: float

    def predict(self, x: Sequence[float] | Floats) -> Floats:
        """Fitted rates at x."""
        span = self.largest - self.smallest
        where = (np.asarray(x, dtype=np.float64) - self.smallest) / span
        if self.form == "logistic":
            ends = np.clip([self.low, self.high], EDGE, 1 - EDGE)
            low, high = np.log(ends / (1 - ends))
            return logistic(low + (high - low) * where)
        if self.threshold is not None:
            where = hinge_shape(np.array((self.threshold - self.smallest) / span), where)
        return self.low + (self.high - self.low) * where


@dataclass(frozen=True)
class DoseResponse:
    """What the students of one model say about the form of their dose-response curve."""

    verdict: DoseVerdict
    reason: str
    fits: tuple[Fit, ...]
    threshold: Estimate  # of the hinge; parametric bootstrap
    dispersion: float  # variance between seeds over binomial variance, at least 1
    monotone: float | None  # p-value of the test that the true rates never turn back

    def fit(self, form: Form) -> Fit:
        return next(fit for fit in self.fits if fit.form == form)


def fit_dose(
    points: Sequence[DosePoint],
    *,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> DoseResponse:
    """Fit all forms, compare them and say what the curve is.

    Include the control student at its x (strength 0). The verdict is `threshold` where a
    hinge clearly leads both the line and the logistic curve, `continuous` where it leads
    neither, `none` where nothing moves and `undecided` where the data do not tell; fewer
    than four different x never do. The threshold is estimated wherever the rate moves, but
    means something only under the verdict `threshold`. Raises ValueError for counts that
    are not counts.
    """
    _checked(points)
    x = np.array([point.x for point in points], dtype=np.float64)
    if np.unique(x).size < 4:
        few = "fewer than four different strengths"
        return DoseResponse("undecided", few, (), Estimate.unknown(few), 1.0, None)
    trials = np.array([float(sum(point.trials)) for point in points])
    successes = np.array([[float(sum(point.successes)) for point in points]])
    cells = sum(len(point.trials) for point in points)
    batch = fit_batch(x, trials, successes, np.array([between_seeds(points)]), cells)
    dispersion = float(batch.dispersion[0])
    verdict, reason = judge_forms(batch.aicc[0], cells)
    fits = _fits(batch, x)
    rng = np.random.default_rng(seed)
    if fits[FORMS.index("none")].aicc - min(fit.aicc for fit in fits) < RISE_LEAD:
        threshold = Estimate.unknown("the curve is flat, so it has no threshold")
    else:
        hinge = fits[FORMS.index("hinge")]
        threshold = _threshold(hinge, points, dispersion, rng, resamples, confidence)
    monotone = _monotone(points, dispersion, rng, resamples) if resamples else None
    return DoseResponse(verdict, reason, fits, threshold, dispersion, monotone)


class Judgement(NamedTuple):
    verdict: DoseVerdict
    reason: str


def judge_forms(aicc: Floats, cells: int) -> Judgement:
    """The verdict from the AICc of the four forms, in the order of FORMS."""
    none, linear, hinge, curve = (float(value) for value in aicc)
    handicap = penalties(cells)
    extra = float(handicap[FORMS.index("hinge")]) - float(handicap[FORMS.index("linear")])
    testable = extra <= LARGEST_HANDICAP  # False for the NaN of two infinite handicaps
    smooth = min(linear, curve)
    lead = smooth - hinge
    rises = none - min(smooth, hinge) >= RISE_LEAD
    if rises and lead >= THRESHOLD_LEAD:
        return Judgement("threshold", f"a hinge leads every smooth curve by {lead:.1f} in AICc")
    if not testable:
        # AICc charges a hinge so much here that even a true one would seldom lead; calling
        # the rest continuous, or flat, would be a verdict by default.
        return Judgement("undecided", f"{cells} students are too few to tell the forms apart")
    if not rises:
        return Judgement("none", "no curve is supported over a constant rate")
    if lead <= CONTINUOUS_LEAD:
        return Judgement(
            "continuous", f"the best smooth curve leads a hinge by {-lead:.1f} in AICc"
        )
    return Judgement("undecided", f"a hinge leads the best smooth curve by only {lead:.1f} in AICc")


def _fits(batch: Batch, x: Floats) -> tuple[Fit, ...]:
    weights = np.exp(-(batch.aicc[0] - batch.aicc[0].min()) / 2)
    weights = weights / weights.sum()
    return tuple(
        Fit(
            form=form,
            low=float(batch.low[0, i]),
            high=float(batch.low[0, i] if form == "none" else batch.high[0, i]),
            threshold=float(batch.start[0]) if form == "hinge" else None,
            log_likelihood=float(batch.log_likelihood[0, i]),
            aicc=float(batch.aicc[0, i]),
            weight=float(weights[i]),
            smallest=float(x.min()),
            largest=float(x.max()),
        )
        for i, form in enumerate(FORMS)
    )


def between_seeds(points: Sequence[DosePoint]) -> float:
    """Pearson's chi-square between the seeds of one strength over its degrees of freedom.

    NaN where no strength has two seeds. Strengths with no or only successes say nothing.
    """
    pearson, freedom = 0.0, 0
    for point in points:
        successes, trials = np.array(point.successes), np.array(point.trials)
        rate = successes.sum() / trials.sum()
        if 0 < rate < 1:
            pearson += float(
                ((successes - trials * rate) ** 2 / (trials * rate * (1 - rate))).sum()
            )
            freedom += successes.size - 1
    return pearson / freedom if freedom else math.nan


def _simulate(
    rates: Floats, points: Sequence[DosePoint], dispersion: float, rng: np.random.Generator, n: int
) -> Floats:
    """Successes [n, points] at these rates with the dispersion between seeds (beta-binomial)."""
    total = np.zeros((n, len(points)))
    for i, point in enumerate(points):
        for trials in point.trials:
            # Dispersion 1 + (trials - 1) rho; rho of 1 or more is no beta distribution.
            rho = min((dispersion - 1) / max(trials - 1, 1), 0.9)
            rate = np.full(n, np.clip(rates[i], EDGE, 1 - EDGE))
            if rho > 1e-9:
                size = 1 / rho - 1
                rate = rng.beta(rate * size, (1 - rate) * size)
            total[:, i] += rng.binomial(trials, rate)
    return total


def _threshold(
    hinge: Fit,
    points: Sequence[DosePoint],
    dispersion: float,
    rng: np.random.Generator,
    resamples: int,
    confidence: float,
) -> Estimate:
    """Percentiles of the start over studies simulated from the fitted hinge."""
    if resamples < 1:
        return Estimate(hinge.threshold, None, None)
    x = np.array([point.x for point in points])
    trials = np.array([float(sum(point.trials)) for point in points])
    simulated = _simulate(hinge.predict(x), points, dispersion, rng, resamples)
    start, _ = best_hinge((x - x.min()) / np.ptp(x), trials, simulated)
    tail = (1 - confidence) / 2
    low, high = x.min() + np.ptp(x) * np.quantile(start, [tail, 1 - tail])
    return Estimate(hinge.threshold, float(low), float(high))


def _monotone(
    points: Sequence[DosePoint], dispersion: float, rng: np.random.Generator, resamples: int
) -> float:
    """p-value of the likelihood ratio of free rates over the best rates that never turn back."""
    ordered = sorted(points, key=lambda point: point.x)
    trials = np.array([float(sum(point.trials)) for point in ordered])

    def turning(successes: Floats) -> tuple[float, Floats]:
        shares = successes / trials
        up = isotonic_regression(shares, weights=trials).x
        down = isotonic_regression(shares, weights=trials, increasing=False).x
        likelihoods = [float(binomial_log_likelihood(r, trials, successes)) for r in (up, down)]
        free = float(binomial_log_likelihood(successes / trials, trials, successes))
        return free - max(likelihoods), up if likelihoods[0] >= likelihoods[1] else down

    observed, rates = turning(np.array([float(sum(point.successes)) for point in ordered]))
    simulated = _simulate(rates, ordered, dispersion, rng, resamples)
    beyond = sum(turning(row)[0] >= observed - 1e-9 for row in simulated)
    return (beyond + 1) / (resamples + 1)


def _checked(points: Sequence[DosePoint]) -> None:
    for point in points:
        counts = list(zip(point.successes, point.trials, strict=False))
        fits = len(point.successes) == len(point.trials) > 0
        if not fits or any(n < 1 or not 0 <= k <= n for k, n in counts):
            raise ValueError(
                f"x = {point.x}: successes and trials must hold one count per seed, at least one "
                f"trial each: got {point.successes} of {point.trials}"
            )
        if not math.isfinite(point.x):
            raise ValueError(f"x must be finite, got {point.x}")

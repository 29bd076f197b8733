"""Binomial maximum likelihood of dose-response forms, for many studies at once.

Rates over x as a constant, a line, a hinge (constant up to a start, then a line) and a
logistic curve. This module knows nothing about seeds, verdicts or where counts come from.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Form = Literal["none", "linear", "hinge", "logistic"]

FORMS: tuple[Form, ...] = ("none", "linear", "hinge", "logistic")
PARAMETERS = {"none": 1, "linear": 2, "hinge": 3, "logistic": 2}
EDGE = 1e-6  # rates are kept this far from 0 and 1, where the log-likelihood is infinite


class Batch(NamedTuple):
    """Fits of many studies on the same x: [studies, forms], the forms in order of FORMS."""

    low: Floats
    high: Floats
    start: Floats  # [studies]: where the hinge starts, in the units of x
    log_likelihood: Floats
    aicc: Floats
    dispersion: Floats  # [studies]


def fit_batch(
    x: Floats, trials: Floats, successes: Floats, dispersion: Floats, cells: int
) -> Batch:
    """All forms for studies [studies, points] that share x [points] and trials [points].

    dispersion [studies] is NaN where there is one seed; it is then taken from the residuals
    of the best form. cells counts (strength, seed) pairs, the sample size of AICc.
    """
    scaled = (x - x.min()) / np.ptp(x)
    start, hinge = best_hinge(scaled, trials, successes)
    fits: dict[Form, _Fitted] = {
        "none": _line(np.zeros_like(scaled), trials, successes),
        "linear": _line(scaled, trials, successes),
        "hinge": hinge,
        "logistic": _curve(scaled, trials, successes),
    }
    likelihood = np.stack([fits[form].log_likelihood for form in FORMS], axis=1)
    best = np.stack([fits[form].rates for form in FORMS], axis=1)
    chosen = np.argmax(likelihood, axis=1)
    rates = best[np.arange(len(chosen)), chosen]
    pearson = (successes - trials * rates) ** 2 / (trials * rates * (1 - rates))
    freedom = max(x.size - 3, 1)
    dispersion = np.where(np.isnan(dispersion), pearson.sum(axis=1) / freedom, dispersion)
    dispersion = np.maximum(dispersion, 1.0)
    return Batch(
        low=np.stack([fits[form].low for form in FORMS], axis=1),
        high=np.stack([fits[form].high for form in FORMS], axis=1),
        start=x.min() + start * np.ptp(x),
        log_likelihood=likelihood,
        aicc=-2 * likelihood / dispersion[:, None] + penalties(cells),
        dispersion=dispersion,
    )


def penalties(cells: int) -> Floats:
    """2k + 2k(k+1)/(N-k-1) per form (Hurvich and Tsai 1989); the dispersion is one of the k."""
    penalties = []
    for form in FORMS:
        k = PARAMETERS[form] + 1
        spare = cells - k - 1
        penalties.append(2 * k + 2 * k * (k + 1) / spare if spare > 0 else math.inf)
    return np.array(penalties)


class _Fitted(NamedTuple):
    low: Floats  # [...]
    high: Floats
    log_likelihood: Floats
    rates: Floats  # [..., points]


def _line(shape: Floats, trials: Floats, successes: Floats, steps: int = 20) -> _Fitted:
    """Maximum likelihood of rate = low (1 - shape) + high shape, low and high in (0, 1).

    shape [..., points] and successes [..., points] broadcast. Damped Newton; the
    log-likelihood is concave in (low, high).
    """
    studies = np.broadcast_shapes(shape.shape, successes.shape)[:-1]
    mean = np.clip(successes.sum(axis=-1) / trials.sum(), EDGE, 1 - EDGE)
    constant = np.broadcast_to(mean, studies)
    best = _fitted(constant, constant, shape, trials, successes)
    if not shape.any():
        return best
    for _ in range(steps):
        hits, misses = successes / best.rates, (trials - successes) / (1 - best.rates)
        slope, bend = hits - misses, hits / best.rates + misses / (1 - best.rates)
        to_low, to_high = (slope * (1 - shape)).sum(-1), (slope * shape).sum(-1)
        aa = (bend * (1 - shape) ** 2).sum(-1)
        ab = (bend * (1 - shape) * shape).sum(-1)
        bb = (bend * shape**2).sum(-1)
        # The floor keeps a hinge that starts at its last point, where low and high are the
        # same parameter, from dividing by 0 and turning all its rates into NaN.
        determinant = np.maximum(aa * bb - ab * ab, 1e-12 * aa * bb)
        low_step = (bb * to_low - ab * to_high) / determinant
        high_step = (aa * to_high - ab * to_low) / determinant
        # An end held by the edge leaves a problem in the other end alone; the joint step
        # would move the free end to make room for a move that cannot happen.
        low_held, high_held = _held(best.low, to_low), _held(best.high, to_high)
        low_step = np.where(low_held, 0, np.where(high_held, to_low / aa, low_step))
        high_step = np.where(high_held, 0, np.where(low_held, to_high / bb, high_step))
        before = best.log_likelihood
        for damping in (1.0, 0.3, 0.05):
            low = _stepped(best.low, damping * low_step)
            high = _stepped(best.high, damping * high_step)
            best = _better(best, _fitted(low, high, shape, trials, successes))
            if (best.log_likelihood > before).all():
                break
        if (best.log_likelihood - before < 1e-9).all():
            break
    return best


def _held(end: Floats, slope: Floats) -> NDArray[np.bool_]:
    held: NDArray[np.bool_] = ((end <= EDGE) & (slope < 0)) | ((end >= 1 - EDGE) & (slope > 0))
    return held


def _stepped(end: Floats, step: Floats) -> Floats:
    """The end moved by step, at most nine tenths of the way to 0 or 1."""
    moved: Floats = np.clip(end + step, 0.1 * end, 1 - 0.1 * (1 - end))
    return np.clip(moved, EDGE, 1 - EDGE)


def _fitted(low: Floats, high: Floats, shape: Floats, trials: Floats, successes: Floats) -> _Fitted:
    rates = low[..., None] * (1 - shape) + high[..., None] * shape
    return _Fitted(low, high, binomial_log_likelihood(rates, trials, successes), rates)


def binomial_log_likelihood(rates: Floats, trials: Floats, successes: Floats) -> Floats:
    """Without the binomial coefficient, which is the same for every form."""
    rates = np.clip(rates, EDGE, 1 - EDGE)
    likelihood = successes * np.log(rates) + (trials - successes) * np.log1p(-rates)
    total: Floats = likelihood.sum(axis=-1)
    return total


def _better(old: _Fitted, new: _Fitted) -> _Fitted:
    """Per study the fit of higher likelihood: a step of Fisher scoring may overshoot."""
    take = new.log_likelihood > old.log_likelihood
    low, high, likelihood = (np.where(take, b, a) for a, b in zip(old[:3], new[:3], strict=True))
    return _Fitted(low, high, likelihood, np.where(take[..., None], new.rates, old.rates))


LONGEST = 8.0  # log-odds


def _curve(scaled: Floats, trials: Floats, successes: Floats, steps: int = 40) -> _Fitted:
    """Maximum likelihood of logistic(a + b x) by damped Newton, x scaled to [0, 1]."""

    def fitted(a: Floats, b: Floats) -> _Fitted:
        rates = np.clip(logistic(a[:, None] + b[:, None] * scaled), EDGE, 1 - EDGE)
        return _Fitted(
            logistic(a), logistic(a + b), binomial_log_likelihood(rates, trials, successes), rates
        )

    mean = np.clip(successes.sum(axis=1) / trials.sum(), EDGE, 1 - EDGE)
    a, b = np.log(mean / (1 - mean)), np.zeros_like(mean)
    best = fitted(a, b)
    for _ in range(steps):
        weight = trials * best.rates * (1 - best.rates)
        gap = successes - trials * best.rates
        aa, ab, bb = weight.sum(1), (weight * scaled).sum(1), (weight * scaled**2).sum(1)
        determinant = np.maximum(aa * bb - ab * ab, 1e-12)
        ga, gb = gap.sum(1), (gap * scaled).sum(1)
        step_a = (bb * ga - ab * gb) / determinant
        step_b = (aa * gb - ab * ga) / determinant
        # Perfectly separated counts send the slope to infinity; a bounded step gets close
        # enough to the limit for the likelihood and stays finite. Both are shortened alike:
        # shortened apart they no longer point uphill, and steep curves were left half fitted.
        shorter = np.minimum(1, LONGEST / np.maximum(np.maximum(abs(step_a), abs(step_b)), LONGEST))
        step_a, step_b = step_a * shorter, step_b * shorter
        for damping in (1.0, 0.25, 0.05):
            trial = fitted(a + damping * step_a, b + damping * step_b)
            take = trial.log_likelihood > best.log_likelihood
            a = np.where(take, a + damping * step_a, a)
            b = np.where(take, b + damping * step_b, b)
            best = _better(best, trial)
    return best


def best_hinge(scaled: Floats, trials: Floats, successes: Floats) -> tuple[Floats, _Fitted]:
    """Start [studies] of the best hinge and its fit: a profile over starts, refined once.

    The start lies between the smallest and the second largest x; beyond that only one point
    rises and the start cannot be told from the slope.
    """
    last = float(np.unique(scaled)[-2])
    grid = np.linspace(0.0, last, 41)
    start = grid[_argbest(_line(hinge_shape(grid, scaled), trials, successes[:, None]))]
    around = start[:, None] + np.linspace(-1, 1, 21) * (grid[1] - grid[0])
    around = np.clip(around, 0.0, last)
    fits = _line(hinge_shape(around, scaled), trials, successes[:, None])
    rows, best = np.arange(len(start)), _argbest(fits)
    return around[rows, best], _Fitted(*(part[rows, best] for part in fits))


def _argbest(fits: _Fitted) -> NDArray[np.intp]:
    best: NDArray[np.intp] = np.argmax(fits.log_likelihood, axis=-1)
    return best


def hinge_shape(start: Floats, scaled: Floats) -> Floats:
    shape: Floats = np.maximum(scaled - start[..., None], 0) / (1 - start[..., None])
    return shape


def logistic(x: Floats) -> Floats:
    chance: Floats = 0.5 * (1 + np.tanh(x / 2))
    return chance

"""The error between seeds: what the students of other seeds would have shown.

Seeds are a random effect crossed with prompts (two-way analysis of variance). Rows of readouts
in, variances of their mean over prompts out. Knows nothing of teachers, ratios or resampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from undertow.stats.intervals import Floats
from undertow.stats.population import Population, Shown, population_of

HALF = 0.5  # of the residual, what an arm alone subtracts: docs/statistics.md


class Spread(NamedTuple):
    """Rows [seeds, prompts] of one arm, taken apart."""

    between: float  # variance between seeds of the mean over prompts; holds residual, too
    residual: float  # of that, what the noise of single readouts explains
    seeds: int
    unit: float  # how far a seed effect of 1 moves this arm: p (1 - p) for rates, 1 for margins
    rate: float | None = None  # p where the arm moves along the logistic curve; null: a line


class Error(NamedTuple):
    """The error of a mean over seeds: a variance that rests on so many degrees of freedom."""

    variance: float
    freedom: float


NO_ERROR = Error(0.0, math.inf)


class SeedPrior(NamedTuple):
    """What the arms of a model say together of how their students differ.

    An arm's variance between seeds is seed_variance unit^2 + residual: rates near 0 cannot
    differ as those in the middle do. The population is that of the seed variances.
    """

    population: Population
    least: float  # the smallest variance that can be told from 0

    def shown(self, found: Spread) -> Shown:
        return _shown(found, self.least)


def _shown(found: Spread, least: float) -> Shown:
    return Shown(
        max(found.between, least), max(found.residual, least), found.seeds - 1.0, found.unit
    )


def spread(rows: Floats, unit: float = 1.0) -> Spread:
    """Mean squares between seeds and of the residual, over the number of prompts."""
    seeds, prompts = rows.shape
    if seeds == 1:
        return Spread(0.0, 0.0, 1, unit)
    by_seed = rows.mean(axis=1, keepdims=True)
    residual = rows - by_seed - rows.mean(axis=0, keepdims=True) + rows.mean()
    within = float((residual**2).sum()) / ((seeds - 1) * (prompts - 1))
    return Spread(float(by_seed.var(ddof=1)), within / prompts, seeds, unit)


def spread_at(rows: Floats, level: Floats) -> Spread:
    """spread(rows) of students who read `level` [seeds, prompts], in their own units."""
    return spread(rows, unit_of(level))._replace(rate=rate_of(level))


def are_rates(models: Sequence[Floats]) -> bool:
    """Whether all readouts are verdicts: 0 or 1."""
    return all(bool(np.isin(readouts, (0.0, 1.0)).all()) for readouts in models)


def unit_of(rows: Floats) -> float:
    """The derivative of a rate by its log-odds, with one pseudo-prompt; 1 for margins."""
    rate = rate_of(rows)
    return 1.0 if rate is None else rate * (1 - rate)


def rate_of(rows: Floats) -> float | None:
    """The rate with one pseudo-prompt that is as likely 0 as 1; None for margins."""
    if not are_rates([rows]):
        return None
    prompts = rows.shape[1]
    return float((rows.mean() * prompts + 0.5) / (prompts + 1))


def prior_of(spreads: Iterable[Spread], least: float = 0.0) -> SeedPrior | None:
    """The prior of a model's arms, control included; None where fewer than two have two seeds.

    least: the smallest variance that can be told from 0; (1/n)^2 / 12 for rates over n prompts.
    """
    population = population_of([_shown(each, least) for each in spreads if each.seeds > 1])
    return None if population is None else SeedPrior(population, least)


def error_of_mean(found: Spread, variances: Floats, normal: Floats) -> Floats:
    """Errors [resamples] of a mean over seeds, given variances between them and standard normals.

    A margin's lie along a line. Seeds move a rate's log-odds, so the mean over all seeds of a
    rate near 0 may lie far above what a few of them show, and hardly below. Seeds at log-odds
    m + s e have the mean rate logistic(m / sqrt(1 + pi s^2 / 8)) (MacKay 1992, eq. 10); m is
    what gives the observed rate by the spread that the seeds at hand show. In variances between
    observed rates it is counted already that the curve flattens, so their error is left whole.
    """
    if found.rate is None:
        return np.sqrt(variances / found.seeds) * normal
    shown = max(found.between - found.residual, 0.0) * (1 - 1 / found.seeds) / found.unit**2
    apart = variances / found.unit**2
    flatter = np.sqrt((1 + math.pi / 8 * shown) / (1 + math.pi / 8 * apart))
    middle = math.log(found.rate / (1 - found.rate)) * flatter
    return 1 / (1 + np.exp(-middle - np.sqrt(apart / found.seeds) * normal)) - found.rate


def error_alone(found: Spread) -> Error:
    """The arm's own variance, half of the residual subtracted.

    All of it would hide the error of seeds that agree by chance, as three often do; none of it
    would count the prompts' noise twice.
    """
    if found.seeds == 1:
        return NO_ERROR
    left = max(found.between - HALF * found.residual, 0.0)
    return Error(left / found.seeds, found.seeds - 1)


def added(errors: Sequence[Error]) -> Error:
    """The error of a sum of independent means (Welch 1938, Satterthwaite 1946)."""
    variance = math.fsum(error.variance for error in errors)
    if variance == 0:
        return Error(0.0, math.inf)
    below = math.fsum(error.variance**2 / error.freedom for error in errors)
    return Error(variance, variance**2 / below if below else math.inf)

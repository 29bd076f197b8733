"""What the pooled tau of a planned study can be expected to show, by simulating whole models.

Like power.py, which asks the same of single arms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from undertow.stats.family import family_prior
from undertow.stats.line import TransferLine, fit_line, slopes_apart
from undertow.stats.power import Design
from undertow.stats.simulated import simulate_family

RESAMPLES = 500
CONFIDENCE = 0.95


@dataclass(frozen=True)
class PooledExpectation:
    """Medians over the studies in which the pooled tau is defined."""

    low: float | None
    high: float | None
    undefined: float  # share of studies
    apart: float | None  # share in which another model's pooled tau is told from it


def expect_pooled(
    design: Design,
    *,
    strengths: int,
    control_seeds: int,
    other_tau: float | None = None,
    studies: int = 200,
    seed: int = 0,
) -> PooledExpectation:
    """The pooled tau of so many strengths, evenly spaced up to the design's teacher.

    Told apart means that the interval of the difference, paired by prompts, excludes 0.
    """
    rng = np.random.default_rng([seed, strengths, control_seeds])
    ends: list[tuple[float, float]] = []
    told = 0
    for _ in range(studies):
        first = _line(rng, design, strengths, control_seeds, 0, seed)
        if first.tau.value is not None:
            ends.append(first.tau.ends)
        if other_tau is not None:
            other = replace(design, tau=other_tau)
            second = _line(rng, other, strengths, control_seeds, 1, seed)
            told += slopes_apart(first, second, CONFIDENCE).excludes_zero
    low, high = np.median(ends, axis=0) if ends else (None, None)
    return PooledExpectation(
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        undefined=1 - len(ends) / studies,
        apart=None if other_tau is None else told / studies,
    )


def _line(
    rng: np.random.Generator,
    design: Design,
    strengths: int,
    control_seeds: int,
    stream: int,
    seed: int,
) -> TransferLine[float]:
    found = simulate_family(
        rng,
        design.scenario,
        design.tau,
        arms=strengths,
        prompts=design.prompts,
        seeds=design.seeds,
        control_seeds=control_seeds,
        seed_sd=design.seed_sd,
    )
    return fit_line(
        found.arms,
        {strength: strength for strength in found.arms},
        prior=family_prior(list(found.arms.values())),
        stream=stream,
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        seed=seed,
    )

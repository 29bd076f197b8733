"""Simulations that say whether the statistics can be believed: tau's interval, dose verdicts.

Studies are drawn from a stated truth and given to the same functions that real studies go
through. This module knows nothing about models or files, and imports NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undertow.stats.dose import DosePoint, DoseVerdict, between_seeds, judge_forms
from undertow.stats.forms import fit_batch, logistic
from undertow.stats.simulated import Scenario, SimulatedStudy, simulate_arms
from undertow.stats.transfer import estimate_transfer

Floats = NDArray[np.float64]


SCENARIOS = (
    Scenario("base near 0", 0.02, 0.04, 0.60),
    Scenario("base near 0, weak teacher", 0.02, 0.04, 0.20),
    Scenario("middle", 0.30, 0.35, 0.80),
    Scenario("base near 1", 0.98, 0.95, 0.40),
    Scenario("margin", -6.0, -5.0, 0.0, is_rate=False),
)


@dataclass(frozen=True)
class CoverageRow:
    """How often tau's interval held the truth, over the studies in which tau was defined."""

    scenario: str
    prompts: int
    seeds: int
    seed_sd: float  # of the students' seed effects, in units of the prompts' effects
    tau: float
    studies: int
    undefined: float  # share of studies without a tau
    coverage: float  # of the tau of these very students if seeds is 1, else of all seeds' tau
    coverage_all_seeds: float  # of the tau over all seeds that could have been drawn
    width: float  # median


def coverage_table(
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    prompts: Sequence[int] = (50, 100, 300),
    seeds: Sequence[int] = (1, 3, 5),
    seed_sds: Sequence[float] = (0.0, 0.4),
    taus: Sequence[float] = (0.0, 0.25, 0.6, 1.0),
    studies: int = 300,
    resamples: int = 1000,
    seed: int = 0,
) -> list[CoverageRow]:
    """Coverage of the 95 % interval of tau, one row per combination of the arguments."""
    return [
        _coverage(scenario, n, s, sd, tau, studies, resamples, seed)
        for scenario in scenarios
        for s in seeds
        for sd in seed_sds
        for n in prompts
        for tau in taus
    ]


def _coverage(
    scenario: Scenario,
    prompts: int,
    seeds: int,
    seed_sd: float,
    tau: float,
    studies: int,
    resamples: int,
    seed: int,
) -> CoverageRow:
    # Seeded by everything but tau's neighbours: a row does not change with the grid around it.
    name = sum(scenario.name.encode())
    rng = np.random.default_rng(
        [seed, name, prompts, seeds, round(1000 * seed_sd), round(1000 * tau)]
    )
    arms, taus_here = simulate_arms(rng, scenario, tau, prompts, seeds, seed_sd, studies)
    found = estimate_transfer(arms, resamples=resamples, seed=seed)

    held, held_all, widths = [], [], []
    for study, transfer in found.items():
        low, high = transfer.tau.low, transfer.tau.high
        if low is None or high is None:
            continue
        target = taus_here[study] if seeds == 1 else tau
        held.append(low <= target <= high)
        held_all.append(low <= tau <= high)
        widths.append(high - low)
    return CoverageRow(
        scenario=scenario.name,
        prompts=prompts,
        seeds=seeds,
        seed_sd=seed_sd,
        tau=tau,
        studies=studies,
        undefined=1 - len(held) / studies,
        coverage=float(np.mean(held)) if held else float("nan"),
        coverage_all_seeds=float(np.mean(held_all)) if held else float("nan"),
        width=float(np.median(widths)) if held else float("nan"),
    )


@dataclass(frozen=True)
class Truth:
    """Student rates of a simulated study, control first, and the verdict that is right."""

    name: str
    x: tuple[float, ...]
    rates: tuple[float, ...]
    right: DoseVerdict


STRENGTHS = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
TEACHER_RATES = (0.02, 0.08, 0.22, 0.45, 0.68, 0.84, 0.92)


def all_truths() -> tuple[Truth, ...]:
    """The shapes that dose verdicts are tried on, with the verdict that is right for each."""
    share = np.array(STRENGTHS) / STRENGTHS[-1]
    teacher = np.array(TEACHER_RATES)

    def line(low: float, high: float) -> Floats:
        return low + (high - low) * share

    def curve(low: float, high: float) -> Floats:
        ends = np.log(np.array([low, high]) / (1 - np.array([low, high])))
        return logistic(ends[0] + (ends[1] - ends[0]) * share)

    def hinge(low: float, high: float, start: float) -> Floats:
        start = start / STRENGTHS[-1]
        return low + (high - low) * np.maximum(share - start, 0) / (1 - start)

    def step(low: float, high: float, start: float) -> Floats:
        return np.where(share * STRENGTHS[-1] > start + 1e-9, high, low)

    by_strength: list[tuple[str, Floats, DoseVerdict]] = [
        ("flat at 0.04", line(0.04, 0.04), "none"),
        ("flat at 0.30", line(0.30, 0.30), "none"),
        ("line 0.04 to 0.24", line(0.04, 0.24), "continuous"),
        ("line 0.04 to 0.54", line(0.04, 0.54), "continuous"),
        ("line 0.04 to 0.90", line(0.04, 0.90), "continuous"),
        ("logistic 0.04 to 0.30", curve(0.04, 0.30), "continuous"),
        ("logistic 0.04 to 0.60", curve(0.04, 0.60), "continuous"),
        ("hinge at 0.10, 0.04 to 0.50", hinge(0.04, 0.50, 0.10), "threshold"),
        ("hinge at 0.15, 0.04 to 0.30", hinge(0.04, 0.30, 0.15), "threshold"),
        ("hinge at 0.15, 0.04 to 0.50", hinge(0.04, 0.50, 0.15), "threshold"),
        ("hinge at 0.15, 0.04 to 0.70", hinge(0.04, 0.70, 0.15), "threshold"),
        ("hinge at 0.20, 0.04 to 0.50", hinge(0.04, 0.50, 0.20), "threshold"),
        ("jump at 0.15, 0.04 to 0.25", step(0.04, 0.25, 0.15), "threshold"),
        ("jump at 0.15, 0.04 to 0.35", step(0.04, 0.35, 0.15), "threshold"),
    ]
    by_teacher: list[tuple[str, Floats, DoseVerdict]] = [
        ("tau 0.3 of the teacher's rate", 0.04 + 0.3 * (teacher - teacher[0]), "continuous"),
        ("tau 0.6 of the teacher's rate", 0.04 + 0.6 * (teacher - teacher[0]), "continuous"),
    ]
    return tuple(
        Truth(name, x, tuple(rates.tolist()), right)
        for x, truths in ((STRENGTHS, by_strength), (TEACHER_RATES, by_teacher))
        for name, rates, right in truths
    )


@dataclass(frozen=True)
class DoseVerdictRow:
    """Shares of the verdicts over simulated studies of one truth."""

    truth: str
    right: DoseVerdict
    prompts: int
    seeds: int
    seed_sd: float
    studies: int
    threshold: float
    continuous: float
    none: float
    undecided: float


def dose_table(
    *,
    truths: Sequence[str] | None = None,
    prompts: int = 100,
    seeds: Sequence[int] = (3,),
    seed_sds: Sequence[float] = (0.0, 0.3, 0.6),
    studies: int = 500,
    seed: int = 0,
) -> list[DoseVerdictRow]:
    """Verdicts on studies shaped like the reference: control, six strengths, 100 prompts.

    Every model of a study is judged by itself, so a study of two models is two such draws.
    Students of one strength share the prompts' effects with all others and have their own
    seed effects. `truths` picks by name; all by default.
    """
    chosen = [truth for truth in all_truths() if truths is None or truth.name in truths]
    return [
        verdict_shares(truth, prompts, s, sd, studies, seed)
        for s in seeds
        for sd in seed_sds
        for truth in chosen
    ]


def verdict_shares(
    truth: Truth, prompts: int, seeds: int, seed_sd: float, studies: int, seed: int
) -> DoseVerdictRow:
    """Verdicts over simulated studies of this truth."""
    rng = np.random.default_rng(
        [seed, sum(truth.name.encode()), prompts, seeds, round(1000 * seed_sd)]
    )
    x = np.array(truth.x)
    counts = np.empty((studies, x.size, seeds))
    for study in range(studies):
        draw = SimulatedStudy(rng, True, prompts)
        counts[study] = [draw.read(rate, seeds, seed_sd)[0].sum(axis=1) for rate in truth.rates]
    dispersion = np.array([_between(study, truth.x, prompts) for study in counts])
    trials = np.full(x.size, float(prompts * seeds))
    cells = x.size * seeds
    batch = fit_batch(x, trials, counts.sum(axis=2), dispersion, cells)
    found = [judge_forms(aicc, cells).verdict for aicc in batch.aicc]
    return DoseVerdictRow(
        truth=truth.name,
        right=truth.right,
        prompts=prompts,
        seeds=seeds,
        seed_sd=seed_sd,
        studies=studies,
        threshold=found.count("threshold") / studies,
        continuous=found.count("continuous") / studies,
        none=found.count("none") / studies,
        undecided=found.count("undecided") / studies,
    )


def _between(counts: Floats, x: Sequence[float], prompts: int) -> float:
    points = [
        DosePoint(where, tuple(int(count) for count in row), (prompts,) * len(row))
        for where, row in zip(x, counts, strict=True)
    ]
    return between_seeds(points)

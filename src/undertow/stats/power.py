"""What a study of a given size can be expected to show, by simulating it.

Every simulated study goes through the estimators and verdicts that the real one will go
through, so a plan promises nothing that the report would not say. Knows nothing about costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from undertow.stats.intervals import difference
from undertow.stats.simulated import Scenario, simulate_arms
from undertow.stats.transfer import Transfer, estimate_transfer
from undertow.stats.validate import Truth, verdict_shares

RESAMPLES = 1000


@dataclass(frozen=True)
class Design:
    """The expected truth and the size of a study.

    seed_sd is the spread of students over seeds on the logit scale, in units of the spread
    of prompts; 0 says that seeds do not matter.
    """

    teacher: float
    tau: float
    base: float = 0.02
    control: float = 0.04
    prompts: int = 100
    seeds: int = 3
    seed_sd: float = 0.3

    @property
    def student(self) -> float:
        return self.scenario.student(self.tau)

    @property
    def scenario(self) -> Scenario:
        return Scenario("planned", self.base, self.control, self.teacher)


@dataclass(frozen=True)
class Expectation:
    """The interval of tau to expect: medians over the studies in which tau is defined."""

    low: float | None
    high: float | None
    width: float | None
    undefined: float  # share of studies without a tau
    excludes_zero: float  # share of studies whose interval of tau lies above or below 0


@dataclass(frozen=True)
class ThresholdPower:
    """Shares of studies that get the verdict `threshold`."""

    if_threshold: float  # the power
    if_line: float  # the error


@dataclass(frozen=True)
class Size:
    """The fewest prompts that reach the power with so many seeds; None where none tried do."""

    seeds: int
    prompts: int | None
    power: float  # at these prompts, else at the most that were tried


def expect_interval(design: Design, *, studies: int = 300, seed: int = 0) -> Expectation:
    """The interval of tau that a study of this design will report."""
    found = [transfer.tau for transfer in _simulated(design, studies, seed)]
    ends = np.array([tau.ends for tau in found if tau.value is not None], dtype=float)
    if not len(ends):
        return Expectation(None, None, None, 1.0, 0.0)
    low, high = ends.T
    return Expectation(
        low=float(np.median(low)),
        high=float(np.median(high)),
        width=float(np.median(high - low)),
        undefined=1 - len(ends) / studies,
        excludes_zero=float(((low > 0) | (high < 0)).sum()) / studies,
    )


def power_apart(design: Design, other_tau: float, *, studies: int = 300, seed: int = 0) -> float:
    """Share of studies in which two models, of tau and other_tau, are told apart.

    Told apart means that the interval of the difference of their taus excludes 0; a study
    in which either is undefined does not tell them apart.
    """
    first = _simulated(design, studies, seed)
    second = _simulated(replace(design, tau=other_tau), studies, seed + 1)
    return (
        sum(difference(a.tau, b.tau).excludes_zero for a, b in zip(first, second, strict=True))
        / studies
    )


def power_threshold(
    design: Design,
    *,
    strengths: int = 6,
    start: float = 0.5,
    studies: int = 300,
    seed: int = 0,
) -> ThresholdPower:
    """How often a threshold is told from a line, over the control and so many strengths.

    The student's rate rises from the control's to the design's at the largest strength:
    from the share `start` of the strengths on (a threshold), or from 0 on (a line).
    """
    x = np.linspace(0, 1, strengths + 1)
    if not 0 < start < x[-2]:
        raise ValueError(f"start must lie between 0 and the last strength but one, got {start}")
    rise = design.student - design.control
    shares = []
    for where in (start, 0.0):
        rates = design.control + rise * np.maximum(x - where, 0) / (1 - where)
        truth = Truth("planned", tuple(x.tolist()), tuple(rates.tolist()), "threshold")
        _check_rates(rates.tolist())
        row = verdict_shares(truth, design.prompts, design.seeds, design.seed_sd, studies, seed)
        shares.append(row.threshold)
    return ThresholdPower(*shares)


def sizes_to_tell_apart(
    design: Design,
    other_tau: float,
    *,
    power: float = 0.8,
    prompts: Sequence[int] = (50, 100, 200, 400, 800),
    seeds: Sequence[int] = (3, 5, 10),
    studies: int = 200,
    seed: int = 0,
) -> list[Size]:
    """For each number of seeds the fewest prompts that tell two models apart.

    One seed is not offered: it does not show how far the next student would be off.
    """
    sizes = []
    for count in seeds:
        reached = 0.0
        for n in sorted(prompts):
            sized = replace(design, seeds=count, prompts=n)
            reached = power_apart(sized, other_tau, studies=studies, seed=seed)
            if reached >= power:
                sizes.append(Size(count, n, reached))
                break
        else:
            sizes.append(Size(count, None, reached))
    return sizes


def _simulated(design: Design, studies: int, seed: int) -> list[Transfer]:
    _check_rates([design.base, design.control, design.teacher, design.student])
    rng = np.random.default_rng(seed)
    arms, _ = simulate_arms(
        rng,
        design.scenario,
        design.tau,
        design.prompts,
        design.seeds,
        design.seed_sd,
        studies,
    )
    return list(estimate_transfer(arms, resamples=RESAMPLES).values())


def _check_rates(rates: Sequence[float]) -> None:
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(
            f"every expected rate must lie between 0 and 1, the student's included "
            f"(control + tau x (teacher - base)): got {', '.join(f'{r:.3g}' for r in rates)}"
        )

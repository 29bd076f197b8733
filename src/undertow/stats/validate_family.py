"""Simulations of whole models: moderated and simultaneous intervals, and the transfer line.

Like validate.py, which does the same for single arms. Knows nothing about models or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from undertow.stats.family import Family, estimate_family
from undertow.stats.intervals import Estimate
from undertow.stats.line import TransferLine, fit_line
from undertow.stats.simulated import Scenario, simulate_family
from undertow.stats.transfer import Readings, estimate_transfer

RESAMPLES = 1000
ARMS = 7
SCENARIOS = (
    Scenario("margin", -6.0, -5.0, 0.0, is_rate=False),
    Scenario("base near 0", 0.02, 0.04, 0.60),
    Scenario("middle", 0.30, 0.35, 0.80),
)
TAU = 0.6


class FamilyStudy(NamedTuple):
    """One simulated or drawn study of a model, with its truth."""

    arms: Mapping[float, Readings]  # by strength
    shifts: Mapping[float, float]  # of the students
    taus: Mapping[float, float]
    pooled: float


@dataclass(frozen=True)
class FamilyRow:
    """Shares of studies of one kind; intervals of student shifts unless named otherwise."""

    name: str
    seeds: int
    control_seeds: int
    cv: float | None  # null: whatever the students that were drawn from have
    studies: int
    alone: float  # coverage of the arms' own intervals, with as many controls as seeds
    moderated: float
    width: float  # mean width of moderated over mean width of alone
    tau: float  # coverage of tau, moderated
    undefined: float  # share of tau
    together: float  # all arms' simultaneous intervals hold the truth
    taus_together: float
    pooled: float  # coverage of the pooled tau
    pooled_width: float  # median
    misfit: float  # share of studies in which one tau is rejected at 5 %, though it is true


def family_table(
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    sizes: Sequence[tuple[int, int]] = ((3, 3), (3, 8), (5, 8)),
    cvs: Sequence[float] = (0.0, 0.3, 0.6, 1.0),
    arms: int = ARMS,
    prompts: int = 100,
    seed_sd: float = 0.4,
    studies: int = 200,
    seed: int = 0,
) -> Iterator[FamilyRow]:
    """Simulated models of so many arms; sizes: (seeds, control seeds)."""
    for scenario in scenarios:
        for seeds, control_seeds in sizes:
            for cv in cvs:
                name = sum(scenario.name.encode())
                rng = np.random.default_rng([seed, name, seeds, control_seeds, round(100 * cv)])

                def draw(
                    rng: np.random.Generator = rng,
                    scenario: Scenario = scenario,
                    seeds: int = seeds,
                    control_seeds: int = control_seeds,
                    cv: float = cv,
                ) -> FamilyStudy:
                    found = simulate_family(
                        rng,
                        scenario,
                        TAU,
                        arms=arms,
                        prompts=prompts,
                        seeds=seeds,
                        control_seeds=max(seeds, control_seeds),
                        seed_sd=seed_sd,
                        cv=cv,
                    )
                    return FamilyStudy(
                        found.arms, found.shifts, dict.fromkeys(found.arms, TAU), TAU
                    )

                yield _row(scenario.name, seeds, control_seeds, cv, draw, studies, seed)


def students_table(
    arms: Mapping[float, Readings],
    *,
    sizes: Sequence[tuple[int, int]] = ((3, 3), (3, 8), (5, 5), (5, 8)),
    studies: int = 400,
    seed: int = 0,
) -> Iterator[FamilyRow]:
    """Studies drawn from real students; the truth is what all of them show on all prompts.

    Seeds and prompts are drawn with replacement, so the students at hand are the population.
    Their pooled tau is the truth about them; whether one tau fits them is not known.
    """
    weights = np.array(list(arms))
    taus, shifts, pushes = {}, {}, {}
    for strength, arm in arms.items():
        shifts[strength] = float(arm.student.mean() - arm.control.mean())
        pushes[strength] = float(arm.teacher.mean() - arm.base.mean())
        taus[strength] = shifts[strength] / pushes[strength]
    above, below = (weights @ np.array(list(each.values())) for each in (shifts, pushes))
    for seeds, control_seeds in sizes:
        rng = np.random.default_rng([seed, seeds, control_seeds])

        def draw(
            rng: np.random.Generator = rng, seeds: int = seeds, controls: int = control_seeds
        ) -> FamilyStudy:
            prompts = rng.integers(0, len(next(iter(arms.values())).base), size=len(arm.base))
            pool = next(iter(arms.values())).control
            control = pool[rng.integers(0, len(pool), max(seeds, controls))][:, prompts]
            drawn = {
                strength: Readings(
                    each.base[prompts],
                    each.teacher[:1, prompts],
                    control,
                    each.student[rng.integers(0, len(each.student), seeds)][:, prompts],
                )
                for strength, each in arms.items()
            }
            return FamilyStudy(drawn, shifts, taus, float(above / below))

        yield _row("students", seeds, control_seeds, None, draw, studies, seed)


def _row(
    name: str,
    seeds: int,
    control_seeds: int,
    cv: float | None,
    draw: Callable[[], FamilyStudy],
    studies: int,
    seed: int,
) -> FamilyRow:
    held: dict[str, list[float]] = {}

    def note(key: str, value: float) -> None:
        held.setdefault(key, []).append(value)

    for index in range(studies):
        study = draw()
        # The resamples of every study are others: those of one are off by chance for all.
        found, line = _estimated(study, seeds, control_seeds, seed + index)
        for key, truth in study.shifts.items():
            alone, moderated = found.alone[key].student_shift, found.moderated[key].student_shift
            note("alone", _holds(alone, truth))
            note("moderated", _holds(moderated, truth))
            note("width alone", _width(alone))
            note("width", _width(moderated))
            tau = found.moderated[key].tau
            note("undefined", tau.value is None)
            if tau.value is not None:
                note("tau", _holds(tau, study.taus[key]))
        every = found.simultaneous
        note("together", all(_holds(every[k].student_shift, t) for k, t in study.shifts.items()))
        known = [k for k in study.arms if every[k].tau.value is not None]
        note("taus", all(_holds(every[k].tau, study.taus[k]) for k in known))
        if line.tau.value is not None:
            note("pooled", _holds(line.tau, study.pooled))
            note("pooled width", _width(line.tau))
        if line.fit.p is not None:
            note("misfit", line.fit.p < 0.05)
    mean = {key: float(np.mean(values)) for key, values in held.items()}
    return FamilyRow(
        name=name,
        seeds=seeds,
        control_seeds=control_seeds,
        cv=cv,
        studies=studies,
        alone=mean["alone"],
        moderated=mean["moderated"],
        width=mean["width"] / mean["width alone"],
        tau=mean.get("tau", float("nan")),
        undefined=mean["undefined"],
        together=mean["together"],
        taus_together=mean["taus"],
        pooled=mean.get("pooled", float("nan")),
        pooled_width=float(np.median(held.get("pooled width", [np.nan]))),
        misfit=mean.get("misfit", float("nan")),
    )


def _estimated(
    study: FamilyStudy, seeds: int, control_seeds: int, seed: int
) -> tuple[Family[float], TransferLine[float]]:
    """Moderated with all control students; alone with as many of them as seeds, as pairs."""
    paired = {k: replace(arm, control=arm.control[:seeds]) for k, arm in study.arms.items()}
    wide = {k: replace(arm, control=arm.control[:control_seeds]) for k, arm in study.arms.items()}
    found = estimate_family(wide, resamples=RESAMPLES, seed=seed)
    if control_seeds != seeds:
        found = replace(found, alone=estimate_transfer(paired, resamples=RESAMPLES, seed=seed))
    strengths = {strength: strength for strength in wide}
    line = fit_line(wide, strengths, prior=found.prior, resamples=RESAMPLES, seed=seed)
    return found, line


def _holds(estimate: Estimate, truth: float) -> bool:
    low, high = estimate.ends
    return low <= truth <= high


def _width(estimate: Estimate) -> float:
    low, high = estimate.ends
    return high - low

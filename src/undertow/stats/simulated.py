"""Readouts of studies that never happened, drawn from a stated truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.stats.forms import logistic
from undertow.stats.transfer import Readings

Floats = NDArray[np.float64]

NODES, _weights = np.polynomial.hermite_e.hermegauss(41)
WEIGHTS = _weights / _weights.sum()
MARGIN_PROMPT_SD = 2.0
MARGIN_NOISE_SD = 1.5


@dataclass(frozen=True)
class Scenario:
    """Mean readouts of base, control student and teacher; the student's follow from tau."""

    name: str
    base: float
    control: float
    teacher: float
    is_rate: bool = True

    def student(self, tau: float) -> float:
        return self.control + tau * (self.teacher - self.base)


class SimulatedArms(NamedTuple):
    arms: dict[int, Readings]  # one per study
    taus: list[float]  # what the very students of each study would show on all prompts


def simulate_arms(
    rng: np.random.Generator,
    scenario: Scenario,
    tau: float,
    prompts: int,
    seeds: int,
    seed_sd: float,
    studies: int,
) -> SimulatedArms:
    """Studies of one arm; control and student have their own seed effects, the teacher none."""
    arms: dict[int, Readings] = {}
    taus: list[float] = []
    for study in range(studies):
        draw = SimulatedStudy(rng, scenario.is_rate, prompts)
        base, _ = draw.read(scenario.base, 1, 0.0)
        teacher, _ = draw.read(scenario.teacher, seeds, 0.0)
        control, control_mean = draw.read(scenario.control, seeds, seed_sd)
        student, student_mean = draw.read(scenario.student(tau), seeds, seed_sd)
        arms[study] = Readings(base[0], teacher, control, student)
        taus.append((student_mean - control_mean) / (scenario.teacher - scenario.base))
    return SimulatedArms(arms, taus)


class SimulatedFamily(NamedTuple):
    arms: dict[float, Readings]  # by strength, 1 is the strongest
    shifts: dict[float, float]  # the students' true shifts over all seeds and prompts


def simulate_family(
    rng: np.random.Generator,
    scenario: Scenario,
    tau: float,
    *,
    arms: int,
    prompts: int,
    seeds: int,
    control_seeds: int,
    seed_sd: float,
    cv: float = 0.0,
) -> SimulatedFamily:
    """One model: so many strengths, evenly spaced, up to the scenario's teacher.

    cv: coefficient of variation of the spread between seeds over the arms, control included
    (log-normal).
    """
    log_sd = float(np.sqrt(np.log1p(cv**2)))
    spreads = seed_sd * np.exp(log_sd * rng.standard_normal(arms + 1))
    study = SimulatedStudy(rng, scenario.is_rate, prompts)
    base, _ = study.read(scenario.base, 1, 0.0)
    control, _ = study.read(scenario.control, control_seeds, float(spreads[0]))
    found: dict[float, Readings] = {}
    shifts: dict[float, float] = {}
    for index in range(1, arms + 1):
        strength = index / arms
        rise = strength * (scenario.teacher - scenario.base)
        teacher, _ = study.read(scenario.base + rise, 1, 0.0)
        student, _ = study.read(scenario.control + tau * rise, seeds, float(spreads[index]))
        found[strength] = Readings(base[0], teacher, control, student)
        shifts[strength] = tau * rise
    return SimulatedFamily(found, shifts)


class SimulatedStudy:
    """Readouts of one set of prompts, whose effects are shared by all models.

    Rates: verdict ~ Bernoulli(logistic(m + prompt effect + seed effect)) with normal effects,
    prompts of standard deviation 1. Margins: the same sum plus normal noise.
    """

    def __init__(self, rng: np.random.Generator, is_rate: bool, prompts: int) -> None:
        self._rng = rng
        self._is_rate = is_rate
        self._prompts = rng.standard_normal(prompts)

    def read(self, mean: float, seeds: int, seed_sd: float) -> tuple[Floats, float]:
        """Readouts [seeds, prompts], and the mean that these seeds would have on all prompts."""
        effects = seed_sd * self._rng.standard_normal((seeds, 1))
        if not self._is_rate:
            noise = MARGIN_NOISE_SD * self._rng.standard_normal((seeds, self._prompts.size))
            effects = MARGIN_PROMPT_SD * effects
            margins = mean + effects + MARGIN_PROMPT_SD * self._prompts + noise
            return margins, mean + float(effects.mean())
        middle = _logit_mean(mean, float(np.hypot(1.0, seed_sd)))
        chance = logistic(middle + effects + self._prompts)
        verdicts = (self._rng.random(chance.shape) < chance).astype(np.float64)
        return verdicts, float((logistic(middle + effects + NODES) @ WEIGHTS).mean())


@lru_cache(maxsize=1024)
def _logit_mean(rate: float, sd: float) -> float:
    """The m at which logistic(m + sd x) has this mean over a standard normal x."""
    low, high = -30.0, 30.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        if float(logistic(middle + sd * NODES) @ WEIGHTS) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2

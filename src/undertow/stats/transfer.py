"""The transfer ratio tau and its uncertainty, from readouts that are already in memory.

Pure functions on NumPy arrays. This module knows nothing about models, judges, files or
which arm is a control; it reads numbers and returns numbers or a reason for their absence.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from undertow.stats.intervals import (
    Estimate,
    Floats,
    Interval,
    _check_confidence,
    percentiles,
    wilson,
)

K = TypeVar("K", bound=Hashable)

NO_PROMPTS = (
    "fewer than two evaluation prompts have a readout in all four of base, teacher, "
    "control and student"
)
NO_SHIFT = (
    "the teacher reads exactly as the base model on every prompt (its shift is exactly 0), "
    "so there is nothing to transfer"
)
UNCLEAR_SHIFT = (
    "the interval of the teacher's shift covers 0, so the ratio has no stable denominator"
)


@dataclass(frozen=True)
class Readings:
    """One arm: the same evaluation prompts, in the same order, read in four models.

    Rates are 0 or 1 per prompt, margins are real; NaN marks a readout that is unknown.
    Row i of teacher, control and student belongs to the same seed; a teacher that does not
    depend on the seed may be given as a single row.
    """

    base: Floats  # [prompts]         T0
    teacher: Floats  # [seeds, prompts]  Ta
    control: Floats  # [seeds, prompts]  S0
    student: Floats  # [seeds, prompts]  Sa


@dataclass(frozen=True)
class Transfer:
    """What one arm says about transfer, over the prompts that could be used.

    Levels and shifts are shares or nats; a level is None where fewer than two prompts are left.
    """

    base: float | None  # T0
    teacher: float | None  # Ta
    control: float | None  # S0
    student: float | None  # Sa
    teacher_shift: Estimate  # Ta - T0
    student_shift: Estimate  # Sa - S0, corrected for what benign fine-tuning does by itself
    naive_shift: Estimate  # Sa - T0
    tau: Estimate  # (Sa - S0) / (Ta - T0)
    tau_naive: Estimate  # (Sa - T0) / (Ta - T0)
    prompts: int
    seeds: int
    dropped: int  # prompts left out because a readout is NaN in any of the four
    __pydantic_config__: ClassVar = {"extra": "forbid"}


def estimate_transfer(
    arms: Mapping[K, Readings],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[K, Transfer]:
    """Transfer of every arm, with bootstrap intervals.

    Each resample draws evaluation prompts with replacement, the same prompts in all four
    rates. Seeds are a random effect crossed with prompts; three of them are too few to
    resample, so each resample adds a t-distributed seed error of the size found between the
    cell's seeds (docs/statistics.md). One seed shows no such error: the interval is then
    about this student, not about the next one. Rates get the variance of
    one pseudo-prompt, so that a rate of 0 or 1 is not taken for exactly known.
    The draws depend on `seed`, the number of prompts and the number of seeds alone, so an
    arm's result does not depend on its neighbours, and equal-sized arms are paired.

    Raises ValueError for shapes that do not fit together and for infinite readouts.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    draws = Draws(resamples, seed, confidence)
    return {key: _estimate(key, arm, draws) for key, arm in arms.items()}


class Draws:
    """Random numbers by sample size, drawn once and shared by every arm of that size."""

    def __init__(self, resamples: int, seed: int, confidence: float) -> None:
        self.confidence = confidence
        self._resamples = resamples
        self._seed = seed
        self._weights: dict[int, Floats] = {}
        self._errors: dict[tuple[str, int], Floats] = {}

    def weights(self, prompts: int) -> Floats:
        """Shares of the prompts [resamples, prompts], each row summing to 1."""
        if prompts not in self._weights:
            stream = np.random.default_rng([self._seed, 0, prompts])
            equal = np.full(prompts, 1 / prompts)
            self._weights[prompts] = stream.multinomial(prompts, equal, self._resamples) / prompts
        return self._weights[prompts]

    def seed_errors(self, seeds: int) -> Floats:
        """Student t errors [resamples] of a mean over so many seeds."""
        if ("seeds", seeds) not in self._errors:
            stream = np.random.default_rng([self._seed, 1, seeds])
            self._errors["seeds", seeds] = stream.standard_t(seeds - 1, self._resamples)
        return self._errors["seeds", seeds]

    def rate_errors(self, model: int) -> Floats:
        """Standard normal errors [resamples] of one of the four rates."""
        if ("rate", model) not in self._errors:
            stream = np.random.default_rng([self._seed, 2, model])
            self._errors["rate", model] = stream.standard_normal(self._resamples)
        return self._errors["rate", model]


@dataclass(frozen=True)
class _Shift:
    """The difference of two models' readouts and its mean over resampled prompts."""

    difference: Floats  # [seeds, prompts]
    resampled: Floats  # [resamples], without the error between seeds
    value: float
    score: Interval | None  # stands in where the bootstrap of a constant sees no error

    def estimate(self, draws: Draws, bound: float) -> Estimate:
        error = seed_error(self.difference, draws)
        low, high = self.score or percentiles(self.resampled + error, draws.confidence)
        return Estimate(self.value, max(low, -bound), min(high, bound))


def _estimate(key: object, arm: Readings, draws: Draws) -> Transfer:
    models = _checked(key, arm)
    known = ~np.isnan(np.concatenate(models)).any(axis=0)
    seeds, prompts = models[-1].shape[0], int(known.sum())
    dropped = known.size - prompts
    if prompts < 2:
        # One prompt resamples to itself: the bootstrap would report certainty.
        none = Estimate.unknown(NO_PROMPTS)
        return Transfer(
            None, None, None, None, none, none, none, none, none, prompts, seeds, dropped
        )

    models = [readouts[:, known] for readouts in models]
    are_rates = all(bool(np.isin(readouts, (0.0, 1.0)).all()) for readouts in models)
    base, teacher, control, student = range(4)

    # Errors follow the teacher's direction, so that counting the opposite verdict or flipping
    # the sign of a margin gives the same interval of tau.
    sign = math.copysign(1.0, float(models[teacher].mean() - models[base].mean()))

    def shift(moved: int, reference: int) -> _Shift:
        difference = models[moved] - models[reference]
        value = float(difference.mean())
        resampled = draws.weights(prompts) @ difference.mean(axis=0)
        # Resampling n prompts gives their variance times (n - 1) / n.
        resampled = value + (resampled - value) * math.sqrt(prompts / (prompts - 1))
        score = None
        if are_rates:
            # The variance of one pseudo-prompt that is as likely 0 as 1. Without it a rate
            # that happens to be 0 on these prompts counts as exactly known.
            errors = draws.rate_errors(moved) - draws.rate_errors(reference)
            resampled = resampled + sign * errors * 0.5 / (prompts * math.sqrt(seeds))
            if np.ptp(difference) == 0:
                score = _score_difference(models[moved], models[reference], draws.confidence)
        return _Shift(difference, resampled, value, score)

    bound = 1.0 if are_rates else math.inf
    below, corrected, naive = shift(teacher, base), shift(student, control), shift(student, base)
    teacher_shift = below.estimate(draws, bound)
    reason = _undefined(below, teacher_shift)
    undefined = Estimate.unknown(reason)
    return Transfer(
        base=float(models[base].mean()),
        teacher=float(models[teacher].mean()),
        control=float(models[control].mean()),
        student=float(models[student].mean()),
        teacher_shift=teacher_shift,
        student_shift=corrected.estimate(draws, bound),
        naive_shift=naive.estimate(draws, bound),
        tau=undefined if reason else _ratio(corrected, below, draws),
        tau_naive=undefined if reason else _ratio(naive, below, draws),
        prompts=prompts,
        seeds=seeds,
        dropped=dropped,
    )


def _undefined(shift: _Shift, estimate: Estimate) -> str | None:
    if not shift.difference.any():
        return NO_SHIFT
    if not estimate.excludes_zero:
        # Dividing here would print a huge or sign-flipped tau for a teacher that hardly moved.
        return UNCLEAR_SHIFT
    return None


def _ratio(above: _Shift, below: _Shift, draws: Draws) -> Estimate:
    """above / below with its interval; the interval of below excludes 0.

    Per resample this inverts the test of above - t below = 0 (Fieller 1954), with the
    error between seeds taken at the estimated ratio.
    """
    value = above.value / below.value
    sign = math.copysign(1.0, below.value)
    error = seed_error(above.difference - value * below.difference, draws)
    numerator = above.resampled + sign * error
    # A resampled denominator of 0 or of the other sign stands for a ratio beyond every
    # bound. Dividing by it would put it at NaN, or at the wrong end of the interval.
    usable = below.resampled * sign > 0
    ratios = np.where(numerator * sign < 0, -math.inf, math.inf)
    np.divide(numerator, below.resampled, out=ratios, where=usable)
    low, high = percentiles(ratios, draws.confidence)
    if above.score:
        # The numerator's own interval says how far a rate that no prompt moved could be off.
        ends = (above.score.low / below.value, above.score.high / below.value)
        low, high = min(low, *ends), max(high, *ends)
    return Estimate(value, low, high)


def seed_error(difference: Floats, draws: Draws) -> Floats | float:
    """Errors [resamples] of the mean of difference [seeds, prompts] that seeds explain.

    Two-way analysis of variance (seeds crossed with prompts) with half of the residual mean
    square subtracted. All of it would hide the error of seeds that agree by chance, as three
    often do; none of it would count the prompts' noise twice (docs/statistics.md).
    """
    seeds, prompts = difference.shape
    if seeds == 1:
        return 0.0
    by_seed = difference.mean(axis=1, keepdims=True)
    by_prompt = difference.mean(axis=0, keepdims=True)
    residual = difference - by_seed - by_prompt + difference.mean()
    between = prompts * float(by_seed.var(ddof=1))
    within = float((residual**2).sum()) / ((seeds - 1) * (prompts - 1))
    error = math.sqrt(max(between - within / 2, 0.0) / (seeds * prompts))
    return error * draws.seed_errors(seeds)


def _score_difference(moved: Floats, reference: Floats, confidence: float) -> Interval:
    """Newcombe's (1998) square-and-add interval for two rates that are each 0 or 1.

    Prompts alone count as trials: seeds of one prompt are not independent of each other.
    """
    prompts = moved.shape[1]
    rates = [float(moved.mean()), float(reference.mean())]
    (low_a, high_a), (low_b, high_b) = (
        wilson(round(rate * prompts), prompts, confidence) for rate in rates
    )
    value = rates[0] - rates[1]
    return Interval(
        value - math.hypot(rates[0] - low_a, high_b - rates[1]),
        value + math.hypot(high_a - rates[0], rates[1] - low_b),
    )


def _checked(key: object, arm: Readings) -> list[Floats]:
    """Base, teacher, control and student as [seeds, prompts] (base: one row) that fit together."""
    rows = {
        name: np.asarray(getattr(arm, name), dtype=np.float64)
        for name in ("base", "teacher", "control", "student")
    }
    base, teacher, control, student = rows.values()
    found = ", ".join(f"{name} {list(readouts.shape)}" for name, readouts in rows.items())
    if [readouts.ndim for readouts in rows.values()] != [1, 2, 2, 2]:
        raise ValueError(
            f"arm {key!r}: base must be [prompts], the others [seeds, prompts]: {found}"
        )
    if any(readouts.shape[-1] != base.size for readouts in rows.values()):
        raise ValueError(f"arm {key!r}: all four must hold the same prompts: {found}")
    seeds = len(student)
    if seeds == 0 or len(control) != seeds or len(teacher) not in (1, seeds):
        raise ValueError(
            f"arm {key!r}: teacher, control and student must hold the same seeds, "
            f"at least one: {found}"
        )
    if any(np.isinf(readouts).any() for readouts in rows.values()):
        raise ValueError(f"arm {key!r}: a readout is infinite; write NaN where it is unknown")
    return [base[None, :], np.broadcast_to(teacher, student.shape), control, student]

"""The transfer ratio tau and its uncertainty, from readouts that are already in memory.

Pure functions on NumPy arrays. This module knows nothing about models, judges, files or
which arm is a control; it reads numbers and returns numbers or a reason for their absence.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np

from undertow.stats.draws import Draws, SeedErrors, drawn
from undertow.stats.intervals import (
    Estimate,
    Floats,
    Interval,
    _check_confidence,
    percentiles,
    wilson,
)
from undertow.stats.seeds import SeedPrior, are_rates

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
    Row i of teacher and student belongs to the same seed; a teacher that does not depend on
    the seed may be given as a single row. The control may have seeds of its own; where it has
    as many as the student, row i is the same seed.
    """

    base: Floats  # [prompts]         T0
    teacher: Floats  # [seeds, prompts]  Ta
    control: Floats  # [control seeds, prompts]  S0
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
    prior: SeedPrior | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[K, Transfer]:
    """Transfer of every arm, with bootstrap intervals.

    Each resample draws evaluation prompts with replacement, the same prompts in all four
    rates. Seeds are a random effect crossed with prompts; three of them are too few to
    resample, so each resample adds a t-distributed seed error of the size found between the
    cell's seeds (docs/statistics.md). One seed shows no such error: the interval is then
    about this student, not about the next one. With a `prior` that error is moderated by
    those of the model's other arms (moderation.py), and arm and control are separate terms.
    Rates get the variance of
    one pseudo-prompt, so that a rate of 0 or 1 is not taken for exactly known.
    The draws depend on `seed`, the number of prompts and the number of seeds alone, so an
    arm's result does not depend on its neighbours, and equal-sized arms are paired.

    Raises ValueError for shapes that do not fit together and for infinite readouts.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    draws = drawn(resamples, seed, confidence)
    seeds = SeedErrors(draws, prior)
    return {key: estimate_arm(key, arm, draws, seeds).transfer for key, arm in arms.items()}


class Resampled(NamedTuple):
    """An arm's estimates with the resamples [resamples] that their intervals were read off."""

    transfer: Transfer
    shares: dict[str, Floats]  # by the name of the estimate; without those that are unknown
    freedom: float | None  # that the student's shift rests on; null: one seed, or no error seen
    bound: float  # of a shift: 1 for rates


@dataclass(frozen=True)
class _Shift:
    """The difference of two models' readouts and its mean over resampled prompts."""

    moved: Floats  # [seeds, prompts]
    reference: Floats  # [seeds, prompts]; a single row is the base model
    resampled: Floats  # [resamples], without the error between seeds
    value: float
    score: Interval | None  # stands in where the bootstrap of a constant sees no error


def estimate_arm(key: object, arm: Readings, draws: Draws, seeds: SeedErrors) -> Resampled:
    """One arm's transfer; `key` names it in errors."""
    models = _checked(key, arm)
    known = ~np.isnan(np.concatenate(models)).any(axis=0)
    rows, prompts = models[-1].shape[0], int(known.sum())
    dropped = known.size - prompts
    if prompts < 2:
        # One prompt resamples to itself: the bootstrap would report certainty.
        none = Estimate.unknown(NO_PROMPTS)
        nothing = Transfer(
            None, None, None, None, none, none, none, none, none, prompts, rows, dropped
        )
        return Resampled(nothing, {}, None, math.inf)

    models = [readouts[:, known] for readouts in models]
    rates = are_rates(models)
    base, teacher, control, student = range(4)

    # Errors follow the teacher's direction, so that counting the opposite verdict or flipping
    # the sign of a margin gives the same interval of tau.
    sign = math.copysign(1.0, float(models[teacher].mean() - models[base].mean()))

    def shift(moved: int, reference: int) -> _Shift:
        above, below = models[moved], models[reference]
        by_prompt, value = _mean_difference(above, below)
        resampled = draws.means(by_prompt)
        score = None
        if rates:
            # The variance of one pseudo-prompt that is as likely 0 as 1. Without it a rate
            # that happens to be 0 on these prompts counts as exactly known.
            counts = (len(above), len(above) if reference == base else len(below))
            errors = [
                draws.rate_errors(model) * 0.5 / (prompts * math.sqrt(count))
                for model, count in zip((moved, reference), counts, strict=True)
            ]
            resampled = resampled + sign * (errors[0] - errors[1])
            if np.ptp(above[:, None] - below[None]) == 0:
                score = _score_difference(above, below, draws.confidence)
        return _Shift(above, below, resampled, value, score)

    bound = 1.0 if rates else math.inf
    below, corrected, naive = shift(teacher, base), shift(student, control), shift(student, base)
    # Steering leaves the teacher no seeds to differ by, but what it samples.
    teacher_shift, teacher_shares = _estimated(below, SeedErrors(draws), bound)
    reason = _undefined(below, teacher_shift)
    undefined = Estimate.unknown(reason)
    shares = {"teacher_shift": teacher_shares}
    found = {}
    for name, each, ratio in (
        ("student_shift", corrected, "tau"),
        ("naive_shift", naive, "tau_naive"),
    ):
        found[name], shares[name] = _estimated(each, seeds, bound)
        found[ratio] = undefined
        if not reason:
            found[ratio], shares[ratio] = _ratio(each, below, seeds)
    freedom = seeds.freedom(corrected.moved, corrected.reference)
    transfer = Transfer(
        base=float(models[base].mean()),
        teacher=float(models[teacher].mean()),
        control=float(models[control].mean()),
        student=float(models[student].mean()),
        teacher_shift=teacher_shift,
        **found,
        prompts=prompts,
        seeds=rows,
        dropped=dropped,
    )
    return Resampled(transfer, shares, freedom, bound)


def _mean_difference(above: Floats, below: Floats) -> tuple[Floats, float]:
    if len(below) in (1, len(above)):
        difference = above - below
        return difference.mean(axis=0), float(difference.mean())
    return above.mean(axis=0) - below.mean(axis=0), float(above.mean() - below.mean())


def _estimated(shift: _Shift, seeds: SeedErrors, bound: float) -> tuple[Estimate, Floats]:
    resampled = shift.resampled + seeds.resampled(shift.moved, shift.reference)
    low, high = shift.score or percentiles(resampled, seeds.draws.confidence)
    return Estimate(shift.value, max(low, -bound), min(high, bound)), resampled


def _undefined(shift: _Shift, estimate: Estimate) -> str | None:
    if not (shift.moved - shift.reference).any():
        return NO_SHIFT
    if not estimate.excludes_zero:
        # Dividing here would print a huge or sign-flipped tau for a teacher that hardly moved.
        return UNCLEAR_SHIFT
    return None


def _ratio(above: _Shift, below: _Shift, seeds: SeedErrors) -> tuple[Estimate, Floats]:
    """above / below with its interval; the interval of below excludes 0.

    Per resample this inverts the test of above - t below = 0 (Fieller 1954), with the
    error between seeds taken at the estimated ratio.
    """
    value = above.value / below.value
    sign = math.copysign(1.0, below.value)
    push = value * (below.moved - below.reference)
    error = seeds.resampled(above.moved, above.reference, push, sign)
    ratios = resampled_ratio(above.resampled + error, below.resampled, sign)
    low, high = percentiles(ratios, seeds.draws.confidence)
    if above.score:
        # The numerator's own interval says how far a rate that no prompt moved could be off.
        ends = (above.score.low / below.value, above.score.high / below.value)
        low, high = min(low, *ends), max(high, *ends)
    return Estimate(value, low, high), ratios


def resampled_ratio(above: Floats, below: Floats, sign: float) -> Floats:
    """above / below [resamples], where the sign of the estimated denominator is known.

    A resampled denominator of 0 or of the other sign stands for a ratio beyond every
    bound. Dividing by it would put it at NaN, or at the wrong end of the interval.
    """
    ratios = np.where(above * sign < 0, -math.inf, math.inf)
    np.divide(above, below, out=ratios, where=below * sign > 0)
    return ratios


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
    if seeds == 0 or len(control) == 0 or len(teacher) not in (1, seeds):
        raise ValueError(
            f"arm {key!r}: teacher and student must hold the same seeds, and the control "
            f"at least one: {found}"
        )
    if any(np.isinf(readouts).any() for readouts in rows.values()):
        raise ValueError(f"arm {key!r}: a readout is infinite; write NaN where it is unknown")
    return [base[None, :], np.broadcast_to(teacher, student.shape), control, student]

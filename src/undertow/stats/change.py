"""How far one arm's shifts and tau differ between two revisions that read the same prompts.

Pure functions on NumPy arrays, like transfer.py, whose resampling this follows. Knows nothing
about git, files or which revision is older.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.stats.draws import Draws, seed_error
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.intervals import difference as independent
from undertow.stats.transfer import (
    NO_PROMPTS,
    Readings,
    Transfer,
    estimate_transfer,
)

BASE, TEACHER, CONTROL, STUDENT = range(4)


@dataclass(frozen=True)
class Side:
    """One revision's readings, and the seeds that its rows belong to."""

    readings: Readings  # [seeds, prompts]; the same prompts in the same order on both sides
    seeds: tuple[int, ...]


class Same(NamedTuple):
    """Which of the four are the very same model, read alike, on both sides.

    Equal verdicts do not show it: two different students may answer these prompts alike.
    """

    base: bool = False
    teacher: bool = False
    control: bool = False
    student: bool = False


@dataclass(frozen=True)
class Differences:
    """After minus before, over the prompts that are known on both sides."""

    teacher_shift: Estimate
    student_shift: Estimate
    tau: Estimate
    prompts: int


def paired_differences(
    before: Side,
    after: Side,
    same: Same,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Differences:
    """Differences of two revisions of an arm, with bootstrap intervals.

    Each resample draws prompts once for all eight readings, so that what is hard or easy about
    a prompt cancels. Seeds of the same number are paired too. A model that is the `same` on both
    sides keeps its error on both sides, where it cancels; a comparison of a revision with
    itself is therefore exactly 0 (docs/statistics.md). tau's difference is undefined where
    either tau is.
    """
    models = [_rows(side.readings) for side in (before, after)]
    stacked = np.concatenate([readouts for side in models for readouts in side])
    known = ~np.isnan(stacked).any(axis=0)
    prompts = int(known.sum())
    if prompts < 2:
        none = Estimate.unknown(NO_PROMPTS)
        return Differences(none, none, none, prompts)
    known_models = [[readouts[:, known] for readouts in side] for side in models]
    first, second = (
        Readings(base[0], teacher, control, student)
        for base, teacher, control, student in known_models
    )
    alone = estimate_transfer(
        {"before": first, "after": second}, resamples=resamples, confidence=confidence, seed=seed
    )
    if all(same) and before.seeds == after.seeds:
        return _no_difference(alone["before"], prompts)
    pair = _Pair(known_models, same, before.seeds == after.seeds, resamples, confidence, seed)
    below, above = pair.shift(TEACHER, BASE), pair.shift(STUDENT, CONTROL)
    return Differences(
        teacher_shift=pair.estimate(below, [alone[name].teacher_shift for name in alone]),
        student_shift=pair.estimate(above, [alone[name].student_shift for name in alone]),
        tau=pair.ratio(above, below, [alone[name].tau for name in alone]),
        prompts=prompts,
    )


def _rows(readings: Readings) -> list[Floats]:
    """Base (one row), teacher, control and student as [seeds, prompts]."""
    teacher = np.broadcast_to(readings.teacher, readings.student.shape)
    return [np.atleast_2d(readings.base), teacher, readings.control, readings.student]


def _no_difference(alone: Transfer, prompts: int) -> Differences:
    nothing = Estimate(0.0, 0.0, 0.0)
    undefined = alone.tau.value is None
    return Differences(nothing, nothing, alone.tau if undefined else nothing, prompts)


class _Shift(NamedTuple):
    """Two models' difference on each side."""

    differences: list[Floats]  # [seeds, prompts], before and after
    resampled: list[Floats]  # [resamples]
    blind: bool  # resampling sees no error: a rate difference that no prompt tells apart
    same: bool

    @property
    def values(self) -> list[float]:
        return [float(difference.mean()) for difference in self.differences]


class _Pair:
    def __init__(
        self,
        models: list[list[Floats]],
        same: Same,
        same_seeds: bool,
        resamples: int,
        confidence: float,
        seed: int,
    ) -> None:
        self._models = models
        self._same = same
        self._same_seeds = same_seeds
        self._confidence = confidence
        # What is not shared between the sides takes its random numbers from a stream of its own.
        self._draws = [Draws(resamples, seed + side, confidence) for side in (0, 1)]
        self._are_rates = all(
            bool(np.isin(readouts, (0.0, 1.0)).all()) for side in models for readouts in side
        )

    def shift(self, moved: int, reference: int) -> _Shift:
        differences = [side[moved] - side[reference] for side in self._models]
        resampled = []
        for side, difference in enumerate(differences):
            prompts = difference.shape[1]
            value = float(difference.mean())
            means = self._draws[0].weights(prompts) @ difference.mean(axis=0)
            means = value + (means - value) * math.sqrt(prompts / (prompts - 1))
            if self._are_rates:
                error = self._rate_error(side, moved) - self._rate_error(side, reference)
                means = means + error * 0.5 / (prompts * math.sqrt(len(difference)))
            resampled.append(means)
        change = differences[1].mean(axis=0) - differences[0].mean(axis=0)
        constant = any(np.ptp(each) == 0 for each in (*differences, change))
        same = self._same[moved] and self._same[reference]
        return _Shift(differences, resampled, self._are_rates and constant and not same, same)

    def _rate_error(self, side: int, model: int) -> Floats:
        return self._draws[0 if self._same[model] else side].rate_errors(model)

    def estimate(self, shift: _Shift, alone: list[Estimate]) -> Estimate:
        before, after = shift.values
        if shift.same and self._same_seeds:
            return Estimate(0.0, 0.0, 0.0)
        resampled = shift.resampled[1] - shift.resampled[0] + self._seed_error(shift.differences)
        low, high = percentiles(resampled, self._confidence)
        found = Estimate(after - before, low, high)
        return _widened(found, alone) if shift.blind else found

    def ratio(self, above: _Shift, below: _Shift, alone: list[Estimate]) -> Estimate:
        """Difference of above / below; undefined where either side's own tau is."""
        reason = next((tau.reason for tau in alone if tau.value is None), None)
        if reason:
            return Estimate.unknown(reason)
        ratios, influences = [], []
        for side in (0, 1):
            top, bottom = above.resampled[side], below.resampled[side]
            value, shift = above.values[side] / below.values[side], below.values[side]
            # A resampled denominator of 0 or of the other sign stands for a ratio that could
            # be anything: it must stretch both ends.
            usable = bottom * math.copysign(1.0, shift) > 0
            ratio = np.full(len(bottom), np.nan)
            np.divide(top, bottom, out=ratio, where=usable)
            ratios.append(ratio)
            spread = above.differences[side] - value * below.differences[side]
            influences.append(spread / shift)
        resampled = ratios[1] - ratios[0] + self._seed_error(influences)
        low, _ = percentiles(np.where(np.isnan(resampled), -math.inf, resampled), self._confidence)
        _, high = percentiles(np.where(np.isnan(resampled), math.inf, resampled), self._confidence)
        value = above.values[1] / below.values[1] - above.values[0] / below.values[0]
        found = Estimate(value, low, high)
        return _widened(found, alone) if above.blind else found

    def _seed_error(self, sides: list[Floats]) -> Floats | float:
        """The error [resamples] of after minus before that seeds explain."""
        if self._same_seeds:
            return seed_error(sides[1] - sides[0], self._draws[0])
        return seed_error(sides[1], self._draws[1]) - seed_error(sides[0], self._draws[0])


def _widened(found: Estimate, alone: list[Estimate]) -> Estimate:
    """Widened to the interval that two independent revisions would have.

    Where no prompt tells the sides apart resampling sees no error, and 0 of n would count as
    exactly known.
    """
    other = independent(alone[1], alone[0])
    if other.value is None:
        return found
    return Estimate(
        found.value,
        min(found.ends.low, other.ends.low),
        max(found.ends.high, other.ends.high),
    )

"""How far one arm's shifts and tau differ between two revisions that read the same prompts.

Pure functions on NumPy arrays, like transfer.py, whose resampling this follows. Knows nothing
about git, files or which revision is older.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.stats.change_seeds import (
    BASE,
    CONTROL,
    STUDENT,
    TEACHER,
    UNKNOWN,
    Priors,
    Same,
    SeedChange,
    Side,
    models_of,
)
from undertow.stats.draws import Draws, seed_error
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.intervals import difference as independent
from undertow.stats.seeds import are_rates
from undertow.stats.transfer import NO_PROMPTS, Readings, Transfer, estimate_transfer


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
    priors: Priors = UNKNOWN,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Differences:
    """Differences of two revisions of an arm, with bootstrap intervals.

    Each resample draws prompts once for all eight readings, so that what is hard or easy about
    a prompt cancels. Seeds of the same number are paired too. A model that is the `same` on both
    sides keeps its error on both sides, where it cancels; a comparison of a revision with
    itself is therefore exactly 0 (docs/statistics.md). tau's difference is undefined where
    either tau is. priors: what the other arms of the model show of how students differ.
    """
    models = [models_of(side.readings) for side in (before, after)]
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
    alone = {
        name: estimate_transfer(
            {name: side}, prior=prior, resamples=resamples, confidence=confidence, seed=seed
        )[name]
        for name, side, prior in (
            ("before", first, priors.before),
            ("after", second, priors.after),
        )
    }
    same_seeds = before.seeds == after.seeds
    if all(same) and same_seeds and before.controls == after.controls:
        return _no_difference(alone["before"], prompts)
    draws = [Draws(resamples, seed + side, confidence) for side in (0, 1)]
    seeds = SeedChange(
        known_models, same, priors, draws, same_seeds, before.controls == after.controls
    )
    pair = _Pair(known_models, same, seeds, draws)
    below, above = pair.shift(TEACHER, BASE), pair.shift(STUDENT, CONTROL)
    return Differences(
        teacher_shift=pair.estimate(below, [alone[name].teacher_shift for name in alone]),
        student_shift=pair.estimate(above, [alone[name].student_shift for name in alone]),
        tau=pair.ratio(above, below, [alone[name].tau for name in alone]),
        prompts=prompts,
    )


def _no_difference(alone: Transfer, prompts: int) -> Differences:
    nothing = Estimate(0.0, 0.0, 0.0)
    undefined = alone.tau.value is None
    return Differences(nothing, nothing, alone.tau if undefined else nothing, prompts)


class _Shift(NamedTuple):
    """Two models' difference on each side."""

    differences: list[Floats]  # [prompts], before and after
    resampled: list[Floats]  # [resamples]
    blind: bool  # resampling sees no error: a rate difference that no prompt tells apart
    same: bool
    moved: int

    @property
    def values(self) -> list[float]:
        return [float(difference.mean()) for difference in self.differences]


class _Pair:
    def __init__(
        self, models: list[list[Floats]], same: Same, seeds: SeedChange, draws: list[Draws]
    ) -> None:
        self._models = models
        self._same = same
        self._seeds = seeds
        # What is not shared between the sides takes its random numbers from a stream of its own.
        self._draws = draws
        self._confidence = draws[0].confidence
        self._are_rates = are_rates([readouts for side in models for readouts in side])

    def shift(self, moved: int, reference: int) -> _Shift:
        differences = [
            side[moved].mean(axis=0) - side[reference].mean(axis=0) for side in self._models
        ]
        resampled = []
        for side, difference in enumerate(differences):
            means = self._draws[0].means(difference)
            if self._are_rates:
                error = self._rate_error(side, moved) - self._rate_error(side, reference)
                means = means + error
            resampled.append(means)
        change = differences[1] - differences[0]
        constant = any(np.ptp(each) == 0 for each in (*differences, change))
        same = self._same[moved] and self._same[reference]
        return _Shift(
            differences, resampled, self._are_rates and constant and not same, same, moved
        )

    def _rate_error(self, side: int, model: int) -> Floats:
        """Of one pseudo-prompt; the base model is read along with the teacher's every seed."""
        prompts = self._models[side][model].shape[1]
        seeds = len(self._models[side][TEACHER if model == BASE else model])
        normal = self._draws[0 if self._same[model] else side].rate_errors(model)
        error: Floats = normal * 0.5 / (prompts * math.sqrt(seeds))
        return error

    def estimate(self, shift: _Shift, alone: list[Estimate]) -> Estimate:
        before, after = shift.values
        if shift.same and self._seeds.same_students and self._seeds.same_controls:
            return Estimate(0.0, 0.0, 0.0)
        error = self._teachers() if shift.moved == TEACHER else self._seeds.of_shift()
        resampled = shift.resampled[1] - shift.resampled[0] + error
        low, high = percentiles(resampled, self._confidence)
        found = Estimate(after - before, low, high)
        return _widened(found, alone) if shift.blind else found

    def _teachers(self) -> Floats | float:
        """The error between seeds of what teachers sample, their own arm alone."""
        first, second = (side[TEACHER] - side[BASE] for side in self._models)
        if self._seeds.same_students:
            return seed_error(second - first, self._draws[0])
        return seed_error(second, self._draws[1]) - seed_error(first, self._draws[0])

    def ratio(self, above: _Shift, below: _Shift, alone: list[Estimate]) -> Estimate:
        """Difference of above / below; undefined where either side's own tau is."""
        reason = next((tau.reason for tau in alone if tau.value is None), None)
        if reason:
            return Estimate.unknown(reason)
        ratios = []
        for side in (0, 1):
            top, bottom, shift = above.resampled[side], below.resampled[side], below.values[side]
            # A resampled denominator of 0 or of the other sign stands for a ratio that could
            # be anything: it must stretch both ends.
            usable = bottom * math.copysign(1.0, shift) > 0
            ratio = np.full(len(bottom), np.nan)
            np.divide(top, bottom, out=ratio, where=usable)
            ratios.append(ratio)
        resampled = ratios[1] - ratios[0] + self._seeds.of_tau(above.values, below.values)
        low, _ = percentiles(np.where(np.isnan(resampled), -math.inf, resampled), self._confidence)
        _, high = percentiles(np.where(np.isnan(resampled), math.inf, resampled), self._confidence)
        value = above.values[1] / below.values[1] - above.values[0] / below.values[0]
        found = Estimate(value, low, high)
        return _widened(found, alone) if above.blind else found


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

"""The error between seeds of a change: how two revisions' students would differ by seeds alone.

The variances of such changes are moderated over the arms of a model like those of students
(population.py). Rows of readouts in, resampled errors out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.stats.draws import CONTROL as CONTROL_STREAM
from undertow.stats.draws import Draws, SeedErrors
from undertow.stats.family import family_prior
from undertow.stats.intervals import Floats
from undertow.stats.seeds import SeedPrior, Spread, are_rates, prior_of, spread, unit_of
from undertow.stats.transfer import Readings

BASE, TEACHER, CONTROL, STUDENT = range(4)
ARM_STREAM = 1


@dataclass(frozen=True)
class Side:
    """One revision's readings, and the seeds that its rows belong to."""

    readings: Readings  # [seeds, prompts]; the same prompts in the same order on both sides
    seeds: tuple[int, ...]
    control_seeds: tuple[int, ...] | None = None  # None: the same

    @property
    def controls(self) -> tuple[int, ...]:
        return self.seeds if self.control_seeds is None else self.control_seeds


class Same(NamedTuple):
    """Which of the four are the very same model, read alike, on both sides.

    Equal verdicts do not show it: two different students may answer these prompts alike.
    """

    base: bool = False
    teacher: bool = False
    control: bool = False
    student: bool = False


class Pair(NamedTuple):
    """One arm on both sides."""

    before: Side
    after: Side
    same: Same


class Priors(NamedTuple):
    """How students of a model differ on each side, and how students of one seed change.

    Null where fewer than two arms show it: an arm then speaks for itself.
    """

    before: SeedPrior | None
    after: SeedPrior | None
    change: SeedPrior | None


UNKNOWN = Priors(None, None, None)


def have_own_teachers(arm: Pair) -> bool:
    """Whether seeds have a teacher each: what such students differ by is not seeds alone."""
    teachers = (arm.before.readings.teacher, arm.after.readings.teacher)
    return not all(
        np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape), equal_nan=True)
        for rows in teachers
    )


def change_priors(arms: Sequence[Pair]) -> Priors:
    """The priors of all arms of one model and readout that both sides have."""
    return Priors(
        family_prior([arm.before.readings for arm in arms]),
        family_prior([arm.after.readings for arm in arms]),
        _change_prior(arms),
    )


def _change_prior(arms: Sequence[Pair]) -> SeedPrior | None:
    """That of the same seeds' students, after minus before; the control is one arm of them."""
    found: list[tuple[Floats, Floats]] = []
    for arm in arms:
        first, second = arm.before, arm.after
        if first.seeds == second.seeds and not arm.same.student:
            found.append((first.readings.student, second.readings.student))
    if arms and arms[0].before.controls == arms[0].after.controls and not arms[0].same.control:
        found.append((arms[0].before.readings.control, arms[0].after.readings.control))
    known = [_known(*each) for each in found]
    known = [each for each in known if each[0].shape[1] > 1]
    if not known:
        return None
    rates = are_rates([rows for each in known for rows in each])
    prompts = min(each[0].shape[1] for each in known)
    return prior_of(
        [spread(after - before, _unit(before, after)) for before, after in known],
        1 / (12 * prompts**2) if rates else 0.0,
    )


def _known(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(np.concatenate([before, after])).any(axis=0)
    return before[:, known], after[:, known]


def _unit(before: Floats, after: Floats, weights: Sequence[float] = (1.0, 1.0)) -> float:
    """How far a seed effect of 1 on each side moves the weighted change."""
    return math.hypot(weights[0] * unit_of(before), weights[1] * unit_of(after))


def models_of(readings: Readings) -> list[Floats]:
    """Base (one row), teacher, control and student as [seeds, prompts]."""
    teacher = np.broadcast_to(readings.teacher, readings.student.shape)
    return [np.atleast_2d(readings.base), teacher, readings.control, readings.student]


@dataclass(frozen=True)
class SeedChange:
    """Errors [resamples] between seeds of after minus before of one arm."""

    models: Sequence[Sequence[Floats]]  # of both sides: base, teacher, control, student
    same: Same
    priors: Priors
    draws: Sequence[Draws]  # of both sides
    same_students: bool  # the same seeds
    same_controls: bool

    def of_shift(self) -> Floats | float:
        return self._error((1.0, 1.0), (0.0, 0.0))

    def of_tau(self, above: Sequence[float], below: Sequence[float]) -> Floats | float:
        """Of the ratio above / below, linear about both sides' values."""
        ratios = [top / bottom for top, bottom in zip(above, below, strict=True)]
        # Of a size at which the smallest variance that can be told from 0 means the same.
        size = 1 / math.sqrt(abs(below[0] * below[1]))
        return size * self._error([1 / bottom / size for bottom in below], ratios)

    def _error(self, weights: Sequence[float], ratios: Sequence[float]) -> Floats | float:
        moved = [
            side[STUDENT] - ratio * (side[TEACHER] - side[BASE])
            for side, ratio in zip(self.models, ratios, strict=True)
        ]
        if self.priors.before is None or self.priors.after is None:
            return self._alone(weights, moved)
        arm = self._term(weights, moved, STUDENT, self.same_students)
        return arm - self._term(
            weights, [side[CONTROL] for side in self.models], CONTROL, self.same_controls
        )

    def _alone(self, weights: Sequence[float], moved: Sequence[Floats]) -> Floats | float:
        """By the arm's own seeds, paired with the control's where they have the same."""
        before, after = (
            (weight * rows, weight * side[CONTROL])
            for weight, rows, side in zip(weights, moved, self.models, strict=True)
        )
        if self.same_students and self.same_controls:
            own, controls = after[0] - before[0], after[1] - before[1]
            return SeedErrors(self.draws[0]).resampled(own, controls)
        return SeedErrors(self.draws[1]).resampled(*after) - SeedErrors(self.draws[0]).resampled(
            *before
        )

    def _term(
        self, weights: Sequence[float], rows: Sequence[Floats], model: int, same_seeds: bool
    ) -> Floats | float:
        """The error of one kind of students, after minus before."""
        stream = CONTROL_STREAM if model == CONTROL else ARM_STREAM
        first, second = (side[model] for side in self.models)
        before, after = (weight * each for weight, each in zip(weights, rows, strict=True))

        def error(found: Spread, prior: SeedPrior | None, side: int) -> Floats:
            return SeedErrors(self.draws[side], prior).of_mean(found, stream)

        if same_seeds and self.same[model]:
            # The same students: only what they count for has changed.
            unit = abs(weights[1] - weights[0]) * unit_of(first)
            return error(spread(after - before, unit), self.priors.before, 0) if unit else 0.0
        if same_seeds:
            unit = _unit(first, second, weights)
            return error(spread(after - before, unit), self.priors.change, 0)
        units = [
            abs(weight) * unit_of(each)
            for weight, each in zip(weights, (first, second), strict=True)
        ]
        return error(spread(after, units[1]), self.priors.after, 1) - error(
            spread(before, units[0]), self.priors.before, 0
        )

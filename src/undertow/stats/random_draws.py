"""Random directions as a sample: what they do to teachers, and how much of it comes across.

One draw says nothing; the draws together are the null distribution of a direction of that size.
Pure functions on NumPy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.stats.draws import SeedErrors
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.seeds import Spread, spread, unit_of

FEWEST = 4
ROUNDING = 1e-9
FEW_DRAWS = f"fewer than {FEWEST} random directions were drawn"
NO_SPREAD = "the random directions moved their teachers no further apart than prompts explain"


@dataclass(frozen=True)
class DrawLine:
    """The student's shift against the teacher's over random draws."""

    slope: Estimate
    correlation: float | None
    draws: int

    @classmethod
    def unknown(cls, reason: str, draws: int = 0) -> DrawLine:
        return cls(Estimate.unknown(reason), None, draws)


class DrawResample(NamedTuple):
    """The draws as points of the transfer line."""

    line: DrawLine
    teacher: Floats  # [draws] shifts
    student: Floats  # [draws]
    teachers: Floats  # [draws, resamples]
    students: Floats  # [draws, resamples], without the error between seeds
    errors: Floats  # [draws, resamples] between seeds
    resampled: Floats  # the slope [resamples]


@dataclass(frozen=True)
class Null:
    """Where one more random draw would lie: mean +- t sd sqrt(1 + 1/draws)."""

    draws: int
    mean: float
    sd: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def null_of(values: Sequence[float], confidence: float) -> Null | None:
    """The prediction interval of a further draw (normal theory).

    None for fewer than FEWEST, and where all are the same: rates of a few prompts can be, and the
    next one need not.
    """
    from scipy.special import stdtrit

    count = len(values)
    if count < FEWEST or not np.ptp(values):
        return None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(stdtrit(count - 1, 0.5 + confidence / 2)) * sd * math.sqrt(1 + 1 / count)
    return Null(count, mean, sd, mean - reach, mean + reach)


def draw_line(arms: Sequence[tuple[Floats, ...]], seeds: SeedErrors) -> DrawResample:
    """The slope over random draws; arms: (base, teacher, control, student) rows [seeds, prompts].

    A product of two shifts on the same prompts holds their common error, sum(x y) / n^2, which
    weakens or strengthens a least squares slope. It is subtracted: what is left are products
    of shifts on different prompts (method of moments, Fuller 1987, sec. 2.2). Shifts are taken
    from their mean over the draws, where the error of the control students cancels.
    """
    numbers = seeds.draws
    points = [point for arm in arms for point in _points(arm)]
    count = len(points)
    if not count:
        empty = np.empty((0, numbers.resamples))
        none = np.empty(0)
        return DrawResample(DrawLine.unknown(FEW_DRAWS), none, none, empty, empty, empty, none)
    x, y = np.array([one.teacher for one in points]), np.array([one.student for one in points])
    teacher, student = x.mean(axis=1), y.mean(axis=1)
    teachers, students = numbers.means(x), numbers.means(y)

    def found(line: DrawLine, errors: Floats, resampled: Floats) -> DrawResample:
        return DrawResample(line, teacher, student, teachers, students, errors, resampled)

    nothing = np.zeros((count, numbers.resamples))
    if count < FEWEST:
        return found(DrawLine.unknown(FEW_DRAWS, count), nothing, np.empty(0))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    prompts = x.shape[1]
    between = x.mean(axis=1)
    below = float((between**2).sum() - x.var(axis=1, ddof=1).sum() / prompts)
    own = float((x.var(axis=1, ddof=1)).sum()) / prompts
    # Teachers that are all the same leave rounding on both sides.
    if below <= own or np.ptp(teacher) < ROUNDING * np.abs(teacher).max():
        return found(DrawLine.unknown(NO_SPREAD, count), nothing, np.empty(0))
    common = ((x - between[:, None]) * (y - y.mean(axis=1)[:, None])).sum() / (prompts - 1)
    slope = float((between @ y.mean(axis=1) - common / prompts) / below)
    left = y.mean(axis=1) - slope * between
    variances = seeds.variances(_about_the_line(left, points), 499)
    errors = np.array(
        [
            np.sqrt(variances) * numbers.between_seeds(seeds.model + 500 + index)
            for index in range(count)
        ]
    )
    # The slope errs by the seeds of every draw, and by the prompts that all draws share.
    own_error = np.sqrt(variances / below) * numbers.between_seeds(seeds.model + 499)
    influence = between @ (y - slope * x) / below
    resampled = slope + numbers.means(influence - influence.mean()) + own_error
    interval = Estimate(slope, *percentiles(resampled, numbers.confidence))
    together = float(np.corrcoef(teacher, student)[0, 1]) if np.ptp(student) else None
    return found(DrawLine(interval, together, count), errors, resampled)


class _Point(NamedTuple):
    teacher: Floats  # [prompts] the shift
    student: Floats  # [prompts]
    unit: float
    residual: float


def _points(arm: tuple[Floats, ...]) -> list[_Point]:
    """One point per seed, which is a direction of its own, however alike two of them look."""
    base, teachers, control, own = arm
    unit, residual = unit_of(own), spread(own - teachers).residual
    return [
        _Point(teacher - base[0], student - control.mean(axis=0), unit, residual)
        for teacher, student in zip(teachers, own, strict=True)
    ]


def _about_the_line(left: Floats, points: Sequence[_Point]) -> Spread:
    """How students of random draws scatter about their line, as a spread over one seed each.

    They may scatter more than seeds do: this is an arm like the others to the prior.
    """
    freedom = len(points) - 2
    own = float((left**2).sum()) / freedom
    unit = float(np.mean([one.unit for one in points]))
    residual = float(np.mean([one.residual for one in points]))
    return Spread(own, residual, freedom + 1, unit)

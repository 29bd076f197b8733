"""The transfer line of one model: the teacher's shift against the student's, arm by arm.

Every arm is a point, and so is every random direction with its student. The slope is the
pooled tau: how much of the teacher's shift came across, over all strengths. Both shifts carry
errors, and the arms share control students and prompts, so the slope is no least squares of one
on the other (docs/statistics.md). Pure functions on NumPy arrays, like transfer.py.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from undertow.stats.draws import CONTROL, SeedErrors, drawn
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.random_draws import DrawLine, DrawResample, draw_line
from undertow.stats.seeds import SeedPrior, Spread, are_rates, spread_at
from undertow.stats.transfer import UNCLEAR_SHIFT, Readings, resampled_ratio

K = TypeVar("K", bound=Hashable)

NO_ARMS = "no arm along the trait direction moved its teacher"
FEW_PROMPTS = "fewer than two evaluation prompts have a readout in every arm"
ONE_ARM = "a single arm has nothing to fit its tau to"
ONE_MODEL = "both are needed to compare them"


@dataclass(frozen=True)
class LineFit:
    """Whether one tau fits all arms: Wald statistic of what the line leaves of each shift."""

    p: float | None  # share of resamples under one tau that leave as much
    statistic: float | None
    freedom: int
    reason: str | None = None


@dataclass(frozen=True)
class TransferLine(Generic[K]):
    """The line through one model's arms, on the prompts that all of them have a readout on."""

    tau: Estimate  # pooled over the arms
    fit: LineFit
    intercept: Estimate  # the student's shift where the teacher's is 0
    random: DrawLine  # the slope of the random draws alone
    against_random: Estimate  # tau minus that slope
    arms: tuple[K, ...]
    prompts: int
    freedom: float | None  # degrees of freedom of the error between seeds; null: none seen
    resampled: Floats  # tau [resamples], paired by prompts with that of another model


class _Points(NamedTuple):
    """Arms as points: per prompt, resampled, and what seeds add."""

    weights: Floats  # [arms] the signed strengths
    teacher: Floats  # [arms, prompts] shifts
    student: Floats  # [arms, prompts]
    teachers: Floats  # [arms, resamples]
    students: Floats  # [arms, resamples], without the error between seeds


def fit_line(
    arms: Mapping[K, Readings],
    strengths: Mapping[K, float],
    draws: Mapping[K, Readings] | None = None,
    *,
    prior: SeedPrior | None = None,
    stream: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> TransferLine[K]:
    """The transfer line through arms along the trait direction; draws are random directions.

    strengths: signed and not 0; they weigh the arms. Pooled tau is sum(w y) / sum(w x) with w
    the strength: an instrument that is fixed before anything is read, so that the errors of x
    do not weaken the slope, as they do in least squares (Wald 1940; Fuller 1987, sec. 1.4).
    prior: of the variances between seeds (family_prior). stream: another number for another
    model, whose students are others; prompts stay the same.
    """
    every = [*arms.values(), *(draws or {}).values()]
    rows = [_rows(each) for each in every]
    size = {each.base.shape[-1] for each in every}
    if not arms or len(size) != 1:
        return _nothing(tuple(arms), NO_ARMS)
    known = ~np.isnan(np.concatenate([row for each in rows for row in each])).any(axis=0)
    if known.sum() < 2:
        return _nothing(tuple(arms), FEW_PROMPTS)
    errors = SeedErrors(drawn(resamples, seed, confidence), prior, model=1000 * stream)
    line = _Line(
        [tuple(row[:, known] for row in each) for each in rows[: len(arms)]],
        np.array([strengths[key] for key in arms]),
        errors,
    )
    random = draw_line([tuple(row[:, known] for row in each) for each in rows[len(arms) :]], errors)
    tau, resampled = line.tau()
    return TransferLine(
        tau=tau,
        fit=line.fit(),
        intercept=line.intercept(random),
        random=random.line,
        against_random=apart(tau, resampled, random.line.slope, random.resampled, confidence),
        arms=tuple(arms),
        prompts=int(known.sum()),
        freedom=line.freedom(),
        resampled=resampled,
    )


def slopes_apart(first: TransferLine[K], second: TransferLine[K], confidence: float) -> Estimate:
    """first - second of two models' pooled tau, paired by prompts.

    The models have to have been read on the same prompts in the same order, and fitted with the
    same seed and streams of their own.
    """
    return apart(first.tau, first.resampled, second.tau, second.resampled, confidence)


def apart(
    first: Estimate, one: Floats, second: Estimate, other: Floats, confidence: float
) -> Estimate:
    """first - second, from resamples that belong together row by row."""
    if first.value is None or second.value is None:
        return Estimate.unknown(first.reason or second.reason or ONE_MODEL)
    # Two ratios beyond every bound say nothing of their difference: it stretches both ends.
    with np.errstate(invalid="ignore"):
        difference = one - other
    low, _ = percentiles(np.where(np.isnan(difference), -math.inf, difference), confidence)
    _, high = percentiles(np.where(np.isnan(difference), math.inf, difference), confidence)
    return Estimate(first.value - second.value, low, high)


def _rows(arm: Readings) -> tuple[Floats, Floats, Floats, Floats]:
    """Base (one row), teacher, control and student."""
    teacher = np.broadcast_to(arm.teacher, arm.student.shape)
    return np.atleast_2d(arm.base), teacher, arm.control, arm.student


def _nothing(arms: tuple[K, ...], reason: str) -> TransferLine[K]:
    none = Estimate.unknown(reason)
    return TransferLine(
        none,
        LineFit(None, None, 0, reason),
        none,
        DrawLine.unknown(reason),
        none,
        arms,
        0,
        None,
        np.empty(0),
    )


class _Line:
    """Everything about the arms along the trait direction."""

    def __init__(
        self,
        arms: list[tuple[Floats, ...]],
        weights: Floats,
        seeds: SeedErrors,
    ) -> None:
        self._arms = arms
        self._seeds = seeds
        self._numbers = numbers = seeds.draws
        teacher = np.array([teachers.mean(axis=0) - base[0] for base, teachers, _, _ in arms])
        student = np.array([own.mean(axis=0) - control.mean(axis=0) for _, _, control, own in arms])
        points = _Points(weights, teacher, student, numbers.means(teacher), numbers.means(student))
        self._points = self._with_rate_errors(points) if are_rates(arms[0]) else points
        self._x, self._y = teacher.mean(axis=1), student.mean(axis=1)
        below = float(weights @ self._x)
        self._value = float(weights @ self._y) / below if below else math.nan
        self._spreads = self._spread_of_seeds()
        self._errors = np.array([seeds.of_mean(*each) for each in self._spreads])

    def _with_rate_errors(self, points: _Points) -> _Points:
        """The variance of one pseudo-prompt on every rate, as in transfer.py."""
        prompts = points.teacher.shape[1]

        def errors(model: int, seeds: int) -> Floats:
            spread: Floats = self._numbers.rate_errors(model) * 0.5 / (prompts * math.sqrt(seeds))
            return spread

        teachers, students = points.teachers.copy(), points.students.copy()
        for index, (_, rows, control, own) in enumerate(self._arms):
            base = errors(self._seeds.model, len(rows))
            teachers[index] += errors(self._seeds.model + 2 + 2 * index, len(rows)) - base
            students[index] += errors(self._seeds.model + 3 + 2 * index, len(own))
            students[index] -= errors(self._seeds.model + 1, len(control))
        return points._replace(teachers=teachers, students=students)

    def tau(self) -> tuple[Estimate, Floats]:
        """The pooled tau with its resamples, by the inversion of transfer.py's ratio."""
        weights = self._points.weights
        below, shift = weights @ self._points.teachers, float(weights @ self._x)
        low, high = percentiles(below, self._numbers.confidence)
        if not (low > 0 or high < 0):
            return Estimate.unknown(UNCLEAR_SHIFT), np.empty(0)
        above = weights @ self._points.students + np.append(weights, -weights.sum()) @ self._errors
        ratios = resampled_ratio(above, below, math.copysign(1.0, shift))
        return Estimate(self._value, *percentiles(ratios, self._numbers.confidence)), ratios

    def fit(self) -> LineFit:
        """Wald test that what one tau leaves of the students' shifts is error alone.

        The covariance of the residuals is that of the joint resamples, linearised at the
        pooled tau; the distribution under one tau is that of the same resamples about 0. It
        speaks of all arms at once, and so by the cautious prior of how unlike they are.
        """
        count = len(self._x)
        if count < 2:
            return LineFit(None, None, 0, ONE_ARM)
        weights = self._points.weights
        below = float(weights @ self._x)
        if not below or math.isnan(self._value):
            return LineFit(None, None, count - 1, UNCLEAR_SHIFT)
        errors = self._errors[:-1] - self._errors[-1]
        deviation = self._points.students - self._y[:, None] + errors
        deviation -= self._value * (self._points.teachers - self._x[:, None])
        # What the slope takes up of an error is not left in the residuals.
        deviation -= np.outer(self._x, weights @ deviation) / below
        if not deviation.any():
            return LineFit(None, None, count - 1, "no resample differs from another")
        residual = self._y - self._value * self._x
        inverse = np.linalg.pinv(np.cov(deviation), rcond=1e-9, hermitian=True)
        statistic = float(residual @ inverse @ residual)
        under = np.einsum("ir,ij,jr->r", deviation, inverse, deviation)
        # The resample that was observed is one of them (Davison and Hinkley 1997, eq. 4.11).
        p = (1 + float(self._seeds.caution() @ (under >= statistic))) / (1 + len(under))
        return LineFit(p, statistic, count - 1)

    def intercept(self, random: DrawResample) -> Estimate:
        """The student's shift at a teacher's shift of 0, by arms and draws together.

        The same instrument, centred: slope and intercept of sum(y) = sum(a + b x) and
        sum(w y) = sum(w (a + b x)). Draws have the strength 0.
        """
        weights = np.append(self._points.weights, np.zeros(len(random.teacher)))
        if np.ptp(weights) == 0:
            return Estimate.unknown("a line needs two strengths, or random draws")
        centred = weights - weights.mean()
        x, y = np.append(self._x, random.teacher), np.append(self._y, random.student)
        below = float(centred @ x)
        if not below:
            return Estimate.unknown(UNCLEAR_SHIFT)
        slope = float(centred @ y) / below
        errors = np.concatenate([self._errors[:-1], random.errors]) - self._errors[-1]
        teachers = np.concatenate([self._points.teachers, random.teachers])
        students = np.concatenate([self._points.students, random.students]) + errors
        deviation = students - y[:, None] - slope * (teachers - x[:, None])
        # Linearised: the intercept is the mean of y - slope x, and the slope errs as well.
        value = float(y.mean() - slope * x.mean())
        resampled = value + deviation.mean(axis=0) - x.mean() * (centred @ deviation) / below
        return Estimate(value, *percentiles(resampled, self._numbers.confidence))

    def freedom(self) -> float | None:
        weights = np.append(self._points.weights, -self._points.weights.sum())
        return self._seeds.freedom_of_sum(
            [(float(w), *each) for w, each in zip(weights, self._spreads, strict=True)]
        )

    def _spread_of_seeds(self) -> list[tuple[Spread, int]]:
        """Of every arm's students, about the line, and last of the control students."""
        arms = [
            spread_at(own - np.nan_to_num(self._value) * (rows - base), own)
            for base, rows, _, own in self._arms
        ]
        control = self._arms[0][2]
        streams = [*range(1, len(arms) + 1), CONTROL]
        return list(zip([*arms, spread_at(control, control)], streams, strict=True))

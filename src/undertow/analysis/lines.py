"""A model's arms together: moderated and simultaneous intervals, and the transfer line.

The arithmetic is that of stats/family.py and stats/line.py; this module chooses what enters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from undertow.config import Arm, StatisticsSettings
from undertow.stats.family import Family, estimate_family
from undertow.stats.intervals import Estimate
from undertow.stats.line import TransferLine, fit_line, slopes_apart
from undertow.stats.random_draws import null_of
from undertow.stats.transfer import Readings, Transfer, estimate_transfer
from undertow.study.records import ReadoutName, Record

READOUTS: tuple[ReadoutName, ...] = ("rate", "margin")


class Intervals(Record):
    """The intervals of one arm's estimates on one readout."""

    student_shift: Estimate
    naive_shift: Estimate
    tau: Estimate
    tau_naive: Estimate


class Bounds(Record):
    """What stands beside an arm's moderated pointwise intervals.

    freedom: degrees of freedom that the student's shift rests on; null where no error between
    seeds was seen.
    """

    alone: Intervals  # by the arm's own seeds
    simultaneous: Intervals  # for all arms of the model at once
    freedom: float | None


class LinePoint(Record):
    """One arm, or one random draw; seed says which draw, and is null for an arm."""

    arm: str
    seed: int | None
    in_slope: bool  # whether it is one of the arms that the slope is fitted to
    teacher_shift: Estimate
    student_shift: Estimate


class NullRecord(Record):
    """Where a further random draw's shift would lie; null ends where the draws are too few."""

    draws: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class LineRecord(Record):
    """The transfer line of one model on one readout."""

    model: str
    readout: ReadoutName
    tau: Estimate  # pooled: how much of the teacher's shift came across
    freedom: float | None
    arms: tuple[str, ...]
    fit_p: float | None  # small: one tau does not fit all strengths
    fit_statistic: float | None
    fit_freedom: int
    fit_reason: str | None
    intercept: Estimate
    random_slope: Estimate
    random_correlation: float | None
    against_random: Estimate  # tau minus the slope of the random draws
    random_teacher: NullRecord
    random_student: NullRecord
    points: tuple[LinePoint, ...]


class ModelDifference(Record):
    """Pooled tau of one model minus that of another, paired by prompts where they are the same."""

    first: str
    second: str
    readout: ReadoutName
    estimate: Estimate


class Together(NamedTuple):
    """All arms of one model on one readout."""

    family: Family[Arm]
    line: LineRecord
    fitted: TransferLine[Arm]


ReadingsOf = Callable[[Arm, int | None], Readings]


def together(
    model: str,
    stream: int,
    arms: Sequence[Arm],
    seeds_of: Callable[[Arm], Sequence[int]],
    readings: ReadingsOf,
    readout: ReadoutName,
    left_out: Sequence[Arm],
    settings: StatisticsSettings,
) -> Together:
    """Family and line of one model.

    readings(arm, seed): the arm's readouts, of all seeds where seed is None. left_out: arms
    whose teacher is degenerate; they keep their estimates and are no part of the slope.
    """
    found = {arm: readings(arm, None) for arm in arms if not arm.is_control}
    draws = [arm for arm in found if arm.direction == "random"]
    family = estimate_family(
        found,
        draws=[arm for arm in draws if len(seeds_of(arm)) > 1],  # one alone is an arm of one seed
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    trait = [arm for arm in found if arm.direction == "trait" and arm not in left_out]
    fitted = fit_line(
        {arm: found[arm] for arm in trait},
        {arm: arm.alpha for arm in trait},
        {arm: found[arm] for arm in draws},
        prior=family.prior,
        stream=stream,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    points = [_point(arm, None, family.moderated[arm], arm in trait) for arm in found]
    alone = estimate_transfer(
        {(arm, seed): readings(arm, seed) for arm in draws for seed in seeds_of(arm)},
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    points += [_point(arm, seed, one, False) for (arm, seed), one in alone.items()]
    return Together(family, _record(model, readout, fitted, points, alone, settings), fitted)


def _record(
    model: str,
    readout: ReadoutName,
    line: TransferLine[Arm],
    points: Sequence[LinePoint],
    draws: Mapping[tuple[Arm, int], Transfer],
    settings: StatisticsSettings,
) -> LineRecord:
    return LineRecord(
        model=model,
        readout=readout,
        tau=line.tau,
        freedom=line.freedom,
        arms=tuple(arm.name for arm in line.arms),
        fit_p=line.fit.p,
        fit_statistic=line.fit.statistic,
        fit_freedom=line.fit.freedom,
        fit_reason=line.fit.reason,
        intercept=line.intercept,
        random_slope=line.random.slope,
        random_correlation=line.random.correlation,
        against_random=line.against_random,
        random_teacher=_null([one.teacher_shift for one in draws.values()], settings.confidence),
        random_student=_null([one.student_shift for one in draws.values()], settings.confidence),
        points=tuple(points),
    )


def _null(shifts: Sequence[Estimate], confidence: float) -> NullRecord:
    known = [shift.value for shift in shifts if shift.value is not None]
    found = null_of(known, confidence)
    if found is None:
        return NullRecord(draws=len(known), mean=None, sd=None, low=None, high=None)
    return NullRecord(
        draws=found.draws, mean=found.mean, sd=found.sd, low=found.low, high=found.high
    )


def _point(arm: Arm, seed: int | None, transfer: Transfer, in_slope: bool) -> LinePoint:
    return LinePoint(
        arm=arm.name,
        seed=seed,
        in_slope=in_slope,
        teacher_shift=transfer.teacher_shift,
        student_shift=transfer.student_shift,
    )


def bounds(family: Family[Arm], arm: Arm) -> Bounds:
    return Bounds(
        alone=_intervals(family.alone[arm]),
        simultaneous=_intervals(family.simultaneous[arm]),
        freedom=family.freedom[arm],
    )


def _intervals(transfer: Transfer) -> Intervals:
    return Intervals(
        student_shift=transfer.student_shift,
        naive_shift=transfer.naive_shift,
        tau=transfer.tau,
        tau_naive=transfer.tau_naive,
    )


def model_differences(
    lines: Mapping[tuple[str, ReadoutName], TransferLine[Arm]], confidence: float
) -> tuple[ModelDifference, ...]:
    """Every pair of models that both have a pooled tau on a readout."""
    models = list(dict.fromkeys(model for model, _ in lines))
    return tuple(
        ModelDifference(
            first=first,
            second=second,
            readout=readout,
            estimate=slopes_apart(lines[first, readout], lines[second, readout], confidence),
        )
        for readout in READOUTS
        for index, first in enumerate(models)
        for second in models[index + 1 :]
        if lines[first, readout].tau.value is not None
        and lines[second, readout].tau.value is not None
    )

"""Dose-response of one model as records: which arms enter the fit, and what the fit says.

The arithmetic is dose.py's. This module knows nothing about files or where counts come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from undertow.stats.dose import DosePoint, DoseResponse, DoseVerdict, Fit, fit_dose
from undertow.stats.forms import Form
from undertow.stats.intervals import Estimate
from undertow.study.records import Record

XName = Literal["strength", "teacher rate"]
RESAMPLES = 1000
CURVE_POINTS = 41
NO_VERDICTS = "none of its students has a verdict"
NO_TEACHER_RATE = "its teacher has no verdict"
OTHER_SIDE = "it steers to the other side"


class FormRecord(Record):
    """One fitted form; low and high are its rates at the smallest and the largest x."""

    form: Form
    weight: float
    low: float
    high: float
    start: float | None  # where a hinge starts to move, in the units of x
    log_likelihood: float
    aicc: float | None  # null: so few students that AICc forbids this form


class CurvePoint(Record):
    x: float
    rate: float


class LeftOut(Record):
    """A trait arm that is not in the fit, and why."""

    arm: str
    reason: str


class DoseRecord(Record):
    """How the students' rate of one model follows the strength, or its teacher's rate."""

    model: str
    x: XName  # strength: the size of it, |alpha|
    side: Literal[-1, 1]  # sign of the strengths that were fitted
    verdict: DoseVerdict
    reason: str
    arms: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    students: int
    forms: tuple[FormRecord, ...]
    best: Form | None  # of the largest AICc weight
    curve: tuple[CurvePoint, ...]  # the best form, to be drawn
    threshold: Estimate  # means something only under the verdict `threshold`
    dispersion: float | None
    monotone: float | None  # p-value of the test that the true rates never turn back

    @property
    def stated_threshold(self) -> Estimate | None:
        """The threshold where the verdict says that there is one."""
        known = self.verdict == "threshold" and self.threshold.value is not None
        return self.threshold if known else None


class DoseArm(NamedTuple):
    """A trait arm, the control included, as the fit sees it."""

    name: str
    alpha: float
    push: float | None  # the teacher's shift; positive is towards the trait
    teacher_rate: float | None
    counts: tuple[tuple[int, int], ...]  # (successes, trials) per student
    degenerate: str | None  # why it may not be fitted


def dose_records(
    model: str,
    arms: Sequence[DoseArm],
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[DoseRecord, DoseRecord]:
    """Two fits: against the size of the strength and against the teacher's rate.

    Both take the control and the arms of the side that steers towards the trait. Students
    without any verdict count as not there.
    """
    side = main_side(arms)

    def record(x: XName) -> DoseRecord:
        left_out, used = [], []
        for arm in arms:
            reason = _reason(arm, side, x)
            if reason:
                left_out.append(LeftOut(arm=arm.name, reason=reason))
            else:
                used.append(arm)
        points = [_point(arm, x) for arm in used]
        found = fit_dose(points, resamples=resamples, confidence=confidence, seed=seed)
        return _record(model, x, side, used, left_out, found)

    return record("strength"), record("teacher rate")


def main_side(arms: Sequence[DoseArm]) -> Literal[-1, 1]:
    """The sign of the strengths that push the teacher towards the trait.

    With strengths of one sign, that sign, whatever the teacher did. With both, the sign of the
    slope of the teachers' shifts over the strength.
    """
    steered = [arm for arm in arms if arm.alpha and arm.degenerate is None]
    signs = {arm.alpha > 0 for arm in steered}
    if len(signs) == 1:
        return 1 if signs == {True} else -1
    slope = sum(arm.alpha * arm.push for arm in steered if arm.push is not None)
    return -1 if slope < 0 else 1


def _reason(arm: DoseArm, side: int, x: XName) -> str | None:
    if arm.degenerate is not None:
        return arm.degenerate
    if arm.alpha * side < 0:
        return OTHER_SIDE
    if not any(trials for _, trials in arm.counts):
        return NO_VERDICTS
    if x == "teacher rate" and arm.teacher_rate is None:
        return NO_TEACHER_RATE
    return None


def _point(arm: DoseArm, x: XName) -> DosePoint:
    counts = [(successes, trials) for successes, trials in arm.counts if trials]
    where = abs(arm.alpha) if x == "strength" else arm.teacher_rate
    return DosePoint(
        x=math.nan if where is None else where,
        successes=tuple(successes for successes, _ in counts),
        trials=tuple(trials for _, trials in counts),
    )


def _record(
    model: str,
    x: XName,
    side: Literal[-1, 1],
    used: Sequence[DoseArm],
    left_out: Sequence[LeftOut],
    found: DoseResponse,
) -> DoseRecord:
    best = max(found.fits, key=lambda fit: fit.weight, default=None)
    return DoseRecord(
        model=model,
        x=x,
        side=side,
        verdict=found.verdict,
        reason=found.reason,
        arms=tuple(arm.name for arm in used),
        left_out=tuple(left_out),
        students=sum(1 for arm in used for _, trials in arm.counts if trials),
        forms=tuple(_form(fit) for fit in found.fits),
        best=best.form if best else None,
        curve=_curve(best) if best else (),
        threshold=found.threshold,
        dispersion=found.dispersion if found.fits else None,
        monotone=found.monotone,
    )


def _form(fit: Fit) -> FormRecord:
    return FormRecord(
        form=fit.form,
        weight=fit.weight,
        low=fit.low,
        high=fit.high,
        start=fit.threshold,
        log_likelihood=fit.log_likelihood,
        aicc=fit.aicc if math.isfinite(fit.aicc) else None,
    )


def _curve(fit: Fit) -> tuple[CurvePoint, ...]:
    where = np.linspace(fit.smallest, fit.largest, CURVE_POINTS)
    if fit.threshold is not None:
        # Between two samples the kink would be cut off.
        where = np.unique(np.append(where, fit.threshold))
    return tuple(
        CurvePoint(x=float(x), rate=float(rate))
        for x, rate in zip(where, fit.predict(where), strict=True)
    )

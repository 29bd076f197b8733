"""Rates and tau corrected for a judge that errs, from its calibration on human labels.

Rogan and Gladen (1978): a judge with sensitivity a and specificity b reads a true rate p as
q = p a + (1 - p)(1 - b), so p = (q + b - 1) / (a + b - 1). The calibration set is small, so a and
b are drawn anew in every bootstrap resample.

The correction is affine with one slope for all four rates. Where none of them is clipped it
cancels in tau: a judge that errs alike on every model cannot bias tau, it only shrinks the
shifts. What calibration adds is corrected rates and shifts, and a tau that is undefined where
the judge may be no better than chance. Errors that differ between models are not corrected.

Pure functions on NumPy arrays, as in transfer.py; knows nothing about judges or files.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Readings, Transfer, estimate_transfer

Floats = NDArray[np.float64]

UNINFORMATIVE = (
    "on the calibration set the judge may be no better than chance: the interval of its "
    "sensitivity + specificity - 1 covers 0"
)
NO_LABELS = "the calibration set lacks rows with or without the trait"


@dataclass(frozen=True)
class Confusion:
    """Counts on human-labelled rows that the judge has scored."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    @property
    def positives(self) -> int:
        return self.true_positive + self.false_negative

    @property
    def negatives(self) -> int:
        return self.true_negative + self.false_positive

    @property
    def sensitivity(self) -> float:
        return self.true_positive / self.positives if self.positives else math.nan

    @property
    def specificity(self) -> float:
        return self.true_negative / self.negatives if self.negatives else math.nan

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: the share of a true shift that the judge shows."""
        return self.sensitivity + self.specificity - 1


@dataclass(frozen=True)
class CorrectedTransfer:
    """What one arm says once the judge's errors are taken out; the raw transfer stands beside."""

    base: Estimate
    teacher: Estimate
    control: Estimate
    student: Estimate
    teacher_shift: Estimate
    student_shift: Estimate
    tau: Estimate


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """The true rate behind an apparent one, clipped to 0..1 (Rogan and Gladen 1978, eq. 2).

    NaN where the judge is no better than chance: dividing there would give a rate of the wrong
    sign or any size.
    """
    youden = sensitivity + specificity - 1
    if not youden > 0:
        return math.nan
    return min(1.0, max(0.0, (rate + specificity - 1) / youden))


def correct_transfer(
    arm: Readings,
    confusion: Confusion,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> CorrectedTransfer:
    """Rates, shifts and tau of one arm with judge errors taken out.

    Rates are 0 or 1 per prompt. Each resample draws prompts, the same in all four rates, and
    sensitivity and specificity from their posterior under Jeffreys' prior. Raises ValueError as
    estimate_transfer does.
    """
    raw = estimate_transfer({"arm": arm}, resamples=resamples, confidence=confidence, seed=seed)[
        "arm"
    ]
    if raw.teacher_shift.reason:
        return _nothing(raw.teacher_shift.reason)
    if not confusion.positives or not confusion.negatives:
        return _nothing(NO_LABELS)
    sensitivity, specificity = _draw_errors(confusion, resamples, seed)
    youden = sensitivity + specificity - 1
    tail = (1 - confidence) / 2
    if np.quantile(youden, tail) <= 0:
        return _nothing(UNINFORMATIVE)

    rates = _resampled_rates(arm, resamples, seed)
    # All four are known: a shift without a reason had prompts to be read off.
    levels = (raw.base, raw.teacher, raw.control, raw.student)
    points = dict(zip(rates, (level or 0.0 for level in levels), strict=True))
    corrected = {}
    for name, apparent in rates.items():
        true = np.clip((apparent + specificity - 1) / youden, 0, 1)
        value = rogan_gladen(points[name], confusion.sensitivity, confusion.specificity)
        corrected[name] = _estimate(value, true, tail)

    return CorrectedTransfer(
        base=corrected["base"],
        teacher=corrected["teacher"],
        control=corrected["control"],
        student=corrected["student"],
        teacher_shift=_scaled(raw.teacher_shift, confusion, youden, tail),
        student_shift=_scaled(raw.student_shift, confusion, youden, tail),
        tau=_corrected_tau(raw, corrected),
    )


def _corrected_tau(raw: Transfer, corrected: dict[str, Estimate]) -> Estimate:
    """The ratio of corrected shifts.

    Unclipped the judge's errors cancel and the raw interval holds. Where a corrected rate was
    clipped at 0 or 1 the ratio of clipped rates is the value, and the interval is widened to
    hold it.
    """
    if raw.tau.value is None:
        return raw.tau
    base, teacher, control, student = (
        math.nan if (value := corrected[name].value) is None else value
        for name in ("base", "teacher", "control", "student")
    )
    below = teacher - base
    if below == 0 or not math.isfinite(below):
        return replace(raw.tau)
    ratio = (student - control) / below
    if math.isclose(ratio, raw.tau.value, rel_tol=1e-9, abs_tol=1e-12):
        ratio = raw.tau.value
    low, high = raw.tau.ends
    return Estimate(ratio, min(low, ratio), max(high, ratio))


def _draw_errors(confusion: Confusion, resamples: int, seed: int) -> tuple[Floats, Floats]:
    stream = np.random.default_rng([seed, 7])
    return (
        stream.beta(confusion.true_positive + 0.5, confusion.false_negative + 0.5, resamples),
        stream.beta(confusion.true_negative + 0.5, confusion.false_positive + 0.5, resamples),
    )


def _resampled_rates(arm: Readings, resamples: int, seed: int) -> dict[str, Floats]:
    """[resamples] of each of the four rates over the same resampled prompts."""
    models = {
        "base": np.atleast_2d(arm.base),
        "teacher": np.atleast_2d(arm.teacher),
        "control": np.atleast_2d(arm.control),
        "student": np.atleast_2d(arm.student),
    }
    known = ~np.isnan(np.concatenate(list(models.values()))).any(axis=0)
    prompts = int(known.sum())
    stream = np.random.default_rng([seed, 8, prompts])
    # One pseudo-prompt that is as likely 0 as 1, as in transfer.py: a rate of 0 is not certain.
    weights = stream.multinomial(prompts, np.full(prompts, 1 / prompts), resamples)
    pseudo = stream.binomial(1, 0.5, (4, resamples))
    return {
        name: (weights @ rows[:, known].mean(axis=0) + pseudo[i]) / (prompts + 1)
        for i, (name, rows) in enumerate(models.items())
    }


def _scaled(shift: Estimate, confusion: Confusion, youden: Floats, tail: float) -> Estimate:
    """A difference of two rates divided by Youden's index, both uncertain.

    The interval takes the shift's half-widths and Youden's relative error as independent
    (first order), so that it keeps the shift's own error between seeds.
    """
    if shift.value is None or shift.low is None or shift.high is None:
        return shift
    value = min(1.0, max(-1.0, shift.value / confusion.youden))
    middle = float(np.median(youden))
    wide = float(np.quantile(youden, tail)) / middle, float(np.quantile(youden, 1 - tail)) / middle
    relative = max(1 / wide[0] - 1, 1 - 1 / wide[1])
    by_judge = abs(value) * relative
    low = value - math.hypot((shift.value - shift.low) / confusion.youden, by_judge)
    high = value + math.hypot((shift.high - shift.value) / confusion.youden, by_judge)
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def _estimate(value: float, resampled: Floats, tail: float) -> Estimate:
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _nothing(reason: str) -> CorrectedTransfer:
    none = Estimate.unknown(reason)
    return CorrectedTransfer(none, none, none, none, none, none, none)

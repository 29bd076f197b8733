"""The report's charts of rates: teacher and student against strength, and against each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from undertow.analysis.doses import DoseRecord
from undertow.analysis.summary import ArmSummary, RateRecord, Summary
from undertow.findings.doses import FORM_NAMES, stated_threshold
from undertow.findings.numbers import PERCENT, arm_name, titled
from undertow.report.figures import across, described, strength_axis, strength_mark, with_data
from undertow.report.page import Figure, typeset
from undertow.report.svg import Axis, Chart, Curve, Mark, Ray, Series, draw, nice_axis
from undertow.report.tables import TidyTable, rate_table
from undertow.stats.intervals import Estimate

TAU_LINES = (0.0, 0.25, 0.5, 1.0)
Subject = Literal["teacher", "student"]


def dose_figure(summary: Summary) -> Figure:
    """Rates of teacher and student against strength with the fitted curve, a panel per model."""
    axis = nice_axis("", _rate_ends(summary), percent=True)
    panels = []
    for index, model in enumerate(summary.models):
        arms = sorted(summary.of_model(model), key=lambda arm: arm.alpha)
        trait = [arm for arm in arms if arm.direction == "trait"]
        random = [arm for arm in arms if arm.direction == "random"]
        x = strength_axis(arms)
        series = (
            Series("teacher", "teacher", _rate_marks(trait, "teacher", x, -1), joined=True),
            Series("student", "student", _rate_marks(trait, "student", x, 0), joined=True),
            Series("student of random control", "random", _rate_marks(random, "student", x, 1)),
        )
        curve = fitted_curve(summary.dose_of(model))
        chart = Chart(
            f"{model}: {summary.rate_name}",
            described(series, [curve.text] if curve else []),
            x,
            axis,
            series,
            curve=curve,
        )
        panels.append(draw(chart, f"dose-{index}"))
    return Figure(
        f"{titled(summary.rate_name)} against strength, with Wilson intervals. Strength 0 is "
        "the base model and the control student. Dashed: the form of the largest weight, fitted "
        "to the students. An upright line and the shaded band around it: the threshold with its "
        "interval, drawn only where the verdict is a threshold.",
        tuple(panels),
        across(summary),
        *with_data("dose.csv", "Rates with Wilson intervals, and fitted", dose_table(summary)),
    )


def fitted_curve(dose: DoseRecord | None) -> Curve | None:
    """The best form over the strengths that were fitted; None where nothing was."""
    if dose is None or dose.best is None:
        return None
    text = f"Fitted: {FORM_NAMES[dose.best]}, {dose.verdict}."
    curve = Curve("fitted", tuple((dose.side * p.x, p.rate) for p in dose.curve), text)
    threshold = dose.stated_threshold
    if threshold is None or threshold.value is None:
        return curve
    low, high = threshold.ends
    return replace(
        curve,
        text=f"{text} Threshold at {stated_threshold(dose)}.",
        threshold=dose.side * threshold.value,
        span=(dose.side * low, dose.side * high),
    )


def dose_table(summary: Summary) -> TidyTable:
    """rate_table's rows, and those of the fitted curves under the name of their form."""
    rates = rate_table(summary)
    fitted = [
        (
            dose.model,
            f"fitted {FORM_NAMES[dose.best]}",
            "trait",
            f"{dose.side * point.x + 0.0:.6g}",
            "student",
            f"{point.rate:.6g}",
            "",
            "",
            "",
        )
        for dose in summary.doses
        if dose.x == "strength" and dose.best is not None
        for point in dose.curve
    ]
    return TidyTable(rates.columns, [*rates.rows, *fitted])


def scatter_figure(summary: Summary) -> Figure:
    """Student rate against teacher rate, with the lines that values of tau would give."""
    rates = _rate_ends(summary)
    axis = nice_axis("", rates, percent=True)
    teacher = nice_axis(f"teacher, {summary.rate_name}", rates, percent=True)
    panels = []
    for index, model in enumerate(summary.models):
        arms = summary.of_model(model)
        trait = [arm for arm in arms if arm.direction == "trait"]
        random = [arm for arm in arms if arm.direction == "random"]
        series = (
            Series("trait", "student", _pairs(trait)),
            Series("random control", "random", _pairs(random)),
        )
        chart = Chart(
            f"{model}: student {summary.rate_name}",
            described(series),
            teacher,
            axis,
            series,
            right=54,
            rays=_tau_rays(arms),
        )
        panels.append(draw(chart, f"scatter-{index}"))
    return Figure(
        "The student's rate against its teacher's, the trait's first and last strength written "
        "beside. The lines start at base model and control student and show where a given tau "
        "lies.",
        tuple(panels),
        across(summary),
        *with_data("rates.csv", "Rates with Wilson intervals", rate_table(summary)),
    )


def _tau_rays(arms: Sequence[ArmSummary]) -> tuple[Ray, ...]:
    control = next((arm for arm in arms if arm.is_control), None)
    if control is None:
        return ()
    base, student = control.teacher_rate.value, control.student_rate.value
    if base is None or student is None:
        return ()
    return tuple(Ray(base, student, tau, f"tau {tau:g}") for tau in TAU_LINES)


def _rate_marks(
    arms: Sequence[ArmSummary], subject: Subject, x: Axis, side: int
) -> tuple[Mark | None, ...]:
    return tuple(
        strength_mark(
            arm,
            Estimate(value=rate.value, low=rate.low, high=rate.high, reason=None),
            x,
            side,
            PERCENT,
            subject,
        )
        for arm in arms
        for rate in [_rate(arm, subject)]
    )


def _rate(arm: ArmSummary, subject: Subject) -> RateRecord:
    return arm.teacher_rate if subject == "teacher" else arm.student_rate


def _pairs(arms: Sequence[ArmSummary]) -> tuple[Mark | None, ...]:
    """Arms as marks; the trait's ends have their strength beside them, more would collide."""
    sizes = [abs(arm.alpha) for arm in arms if arm.direction == "trait"]
    ends = {min(sizes), max(sizes)} if sizes else set()
    return tuple(_pair(arm, labelled=abs(arm.alpha) in ends) for arm in arms)


def _pair(arm: ArmSummary, *, labelled: bool) -> Mark | None:
    """One arm in the plane of teacher rate and student rate."""
    teacher, student = arm.teacher_rate, arm.student_rate
    if teacher.value is None or student.value is None:
        return None
    text = (
        f"{arm_name(arm)} {arm.strength}: teacher {PERCENT.number(teacher.value)} %, "
        f"student {PERCENT.number(student.value)} %"
    )
    return Mark(
        teacher.value,
        student.value,
        typeset(text),
        label=typeset(arm.strength) if labelled else "",
        across=_span(teacher),
        up=_span(student),
    )


def _span(rate: RateRecord) -> tuple[float, float]:
    return (rate.low or 0.0, 1.0 if rate.high is None else rate.high)


def _rate_ends(summary: Summary) -> list[float]:
    rates = [rate for arm in summary.arms for rate in (arm.teacher_rate, arm.student_rate)]
    return [0.0, *(end for rate in rates if rate.value is not None for end in _span(rate))]

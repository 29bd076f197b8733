"""Rates of teacher and student: against strength, and against each other."""

from collections.abc import Sequence

import altair as alt

from undertow.analysis.doses import DoseRecord
from undertow.analysis.summary import ArmSummary, RateSummary, Summary
from undertow.findings.doses import FORM_NAMES, stated_threshold
from undertow.findings.numbers import PERCENT, arm_strength, arm_title, titled
from undertow.report.charts.figure import (
    Datum,
    across,
    along,
    beside,
    described,
    strength_axis,
    strength_row,
    with_data,
)
from undertow.report.charts.layers import (
    DASHES,
    Bounds,
    Ink,
    Place,
    Series,
    ink,
    intervals,
    labels,
    line,
    points,
)
from undertow.report.charts.picture import (
    CLOTHED,
    GROUND,
    RANDOM,
    STUDENT,
    TEACHER,
    TRAIT,
    Words,
    bounds_of,
    draw_picture,
    nice_domain,
    scale_of,
)
from undertow.report.page import Figure, typeset
from undertow.report.tables import TidyTable, rate_table
from undertow.stats.intervals import Estimate
from undertow.study.records import Subject

TAU_LINES = (0.0, 0.25, 0.5, 1.0)
RANDOM_STUDENT = RANDOM._replace(name="student of random control")
FITTED = Series("fitted", "var(--ink)", DASHES, hollow=True)


def dose_figure(summary: Summary) -> Figure:
    """Rates of teacher and student against strength with the fitted curve, a panel per model."""
    domain = nice_domain(_ends(summary))
    panels = []
    for index, model in enumerate(summary.models):
        arms = [arm for arm in summary.views[model].arms if arm.direction is not None]
        place = Place(
            strength_axis(arms), alt.Y("y:Q", scale=scale_of(domain), axis=percent_axis(None))
        )
        curve = fitted_curve(summary.views[model].dose)
        rows = [
            strength_row(arm, _estimate(arm, subject), series, beside(arms, side), PERCENT, subject)
            for series, direction, subject, side in GROUPS
            for arm in along(arms, direction)
        ]
        named = [*(group[0] for group in GROUPS), *([FITTED] if curve else [])]
        panels.append(
            draw_picture(
                [*rate_layers(place, ink(named, GROUND), bounds_of(domain)), *_fit(place)],
                [*rows, *curve],
                Words(f"{model}: {summary.rate_name}", described([*rows, *curve])),
                f"dose-{index}",
            )
        )
    return Figure(
        f"{titled(summary.rate_name)} against strength, with Wilson intervals. Strength 0 is "
        "the base model and the control student. Dashed: the form of the largest weight, fitted "
        "to the students. An upright line and the shaded band around it: the threshold with its "
        "interval, drawn only where the verdict is a threshold.",
        tuple(panels),
        across(summary),
        *with_data("dose.csv", "Rates with Wilson intervals, and fitted", fitted_table(summary)),
    )


GROUPS: tuple[tuple[Series, str, Subject, int], ...] = (
    (TEACHER, "trait", "teacher", -1),
    (STUDENT, "trait", "student", 0),
    (RANDOM_STUDENT, "random", "student", 1),
)


def rate_layers(place: Place, ink: Ink, bounds: Bounds, by: Sequence[str] = ()) -> list[alt.Chart]:
    """A row per arm and subject; those along the trait are joined."""
    joined = f"datum.series !== '{RANDOM_STUDENT.name}' && !isValid(datum.fit)"
    return [
        line(place, ink, joined, "joined", by),
        *intervals(place, ink, "y", bounds),
        points(place, ink),
    ]


def _fit(place: Place) -> list[alt.Chart]:
    """The curve over its threshold's interval, a shaded band, and the threshold itself."""
    base, threshold = alt.Chart(), "isValid(datum.threshold)"
    return [
        base.transform_filter(threshold)
        .mark_rect(style="band", clip=True)
        .encode(x="x_low:Q", x2="x_high:Q")
        .properties(name="band"),
        base.transform_filter(threshold)
        .mark_rule(style="threshold")
        .encode(x="threshold:Q")
        .properties(name="threshold"),
        base.transform_filter("isValid(datum.fit)")
        .mark_line(style="fit", clip=True)
        .encode(place.x, alt.Y("fit:Q"))
        .properties(name="fit"),
    ]


def fitted_curve(dose: DoseRecord | None) -> list[Datum]:
    """Rows of the best form over the fitted strengths and of its threshold; none without a fit."""
    if dose is None or dose.best is None:
        return []
    text = f"Fitted: {FORM_NAMES[dose.best]}, {dose.verdict}"
    rows: list[Datum] = [{"x": dose.side * point.x, "fit": point.rate} for point in dose.curve]
    threshold = dose.stated_threshold
    if threshold is None or threshold.value is None:
        return [*rows, {"text": text}]
    low, high = (dose.side * end for end in threshold.ends)
    return [
        *rows,
        {
            "threshold": dose.side * threshold.value,
            "x_low": min(low, high),
            "x_high": max(low, high),
            "text": f"{text}. Threshold at {typeset(stated_threshold(dose))}",
        },
    ]


def fitted_table(summary: Summary) -> TidyTable:
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
    domain = nice_domain(_ends(summary))
    bounds = bounds_of(domain)
    place = Place(
        alt.X("x:Q", scale=scale_of(domain), axis=percent_axis(f"teacher, {summary.rate_name}")),
        alt.Y("y:Q", scale=scale_of(domain), axis=percent_axis(None)),
    )
    others = (CLOTHED,) if any(view.clothed for view in summary.views.values()) else ()
    marks = ink((TRAIT, *others, RANDOM), GROUND)
    panels = []
    for index, model in enumerate(summary.models):
        arms = summary.views[model].arms
        rows = [
            *_pairs(TRAIT, along(arms, "trait")),
            *_pairs(CLOTHED, summary.views[model].clothed),
            *_pairs(RANDOM, along(arms, "random")),
        ]
        panels.append(
            draw_picture(
                [
                    *_rays(place),
                    *intervals(place, marks, "x", bounds),
                    *intervals(place, marks, "y", bounds),
                    points(place, marks),
                    labels(place),
                ],
                [*rows, *_ray_rows(arms, domain)],
                Words(f"{model}: student {summary.rate_name}", described(rows)),
                f"scatter-{index}",
                right=54,
            )
        )
    return Figure(
        "The student's rate against its teacher's, the trait's first and last strength written "
        "beside. The lines start at base model and control student and show where a given tau "
        "lies.",
        tuple(panels),
        across(summary),
        *with_data("rates.csv", "Rates with Wilson intervals", rate_table(summary)),
    )


def _rays(place: Place) -> list[alt.Chart]:
    """Dashed lines from (x, ray) to (end_x, end_y), named where they end."""
    rays = alt.Chart().transform_filter("isValid(datum.ray)")
    return [
        rays.mark_rule(style="guide")
        .encode(place.x, alt.Y("ray:Q"), x2="end_x", y2="end_y")
        .properties(name="rays"),
        _leaving(rays, "right").mark_text(style="note", align="left", dx=4),
        _leaving(rays, "top").mark_text(style="note", align="right", dx=-14, dy=8),
    ]


def _leaving(rays: alt.Chart, where: str) -> alt.Chart:
    return (
        rays.properties(name=f"note_rays_{where}")
        .transform_filter(f"datum.leaves === '{where}'")
        .encode(alt.X("end_x:Q"), alt.Y("end_y:Q"), text="name:N")
    )


def _ray_rows(arms: Sequence[ArmSummary], domain: tuple[float, float]) -> list[Datum]:
    """Where each tau's line starts and where it leaves the picture, to the right or at the top."""
    control = next((arm for arm in arms if arm.is_control), None)
    if control is None:
        return []
    base, student = control.teacher_rate.value, control.student_rate.value
    if base is None or student is None:
        return []
    rows: list[Datum] = []
    for tau in TAU_LINES:
        x, y = domain[1], student + tau * (domain[1] - base)
        over = y > domain[1]
        if over:
            x, y = base + (domain[1] - student) / tau, domain[1]
        leaves = "top" if over else "right"
        rows.append(
            {"x": base, "ray": student, "end_x": x, "end_y": y, "leaves": leaves}
            | {"name": f"tau {tau:g}"}
        )
    return rows


def _pairs(series: Series, arms: Sequence[ArmSummary]) -> list[Datum]:
    """Arms as points; the trait's ends have their strength beside them, more would collide."""
    sizes = [abs(arm.alpha) for arm in arms if arm.direction == "trait"]
    ends = {min(sizes), max(sizes)} if sizes else set()
    return [
        _pair(series, arm, labelled=arm.direction is None or abs(arm.alpha) in ends)
        for arm in arms
        if arm.teacher_rate.value is not None and arm.student_rate.value is not None
    ]


def _pair(series: Series, arm: ArmSummary, *, labelled: bool) -> Datum:
    """One arm in the plane of teacher rate and student rate."""
    teacher, student = _estimate(arm, "teacher"), _estimate(arm, "student")
    text = (
        f"{arm_title(arm)}: teacher {PERCENT.number(teacher.value)} %, "
        f"student {PERCENT.number(student.value)} %"
    )
    row: Datum = {"x": teacher.value, "x_low": teacher.low, "x_high": teacher.high}
    row |= {"y": student.value, "y_low": student.low, "y_high": student.high}
    row |= {"series": series.name, "text": typeset(text)}
    return row | ({"label": typeset(arm_strength(arm) or arm_title(arm))} if labelled else {})


def percent_axis(title: str | None) -> alt.Axis:
    return alt.Axis(format="%", title=title, tickCount=5)


def _estimate(arm: ArmSummary, subject: Subject) -> Estimate:
    """A rate as an estimate; an end that is not known is the end of what a rate can be."""
    rate = arm.teacher_rate if subject == "teacher" else arm.student_rate
    return Estimate(rate.value, *_span(rate)) if rate.value is not None else Estimate(None)


def _span(rate: RateSummary) -> tuple[float, float]:
    return (rate.low or 0.0, 1.0 if rate.high is None else rate.high)


def _ends(summary: Summary) -> list[float]:
    rates = [rate for arm in summary.arms for rate in (arm.teacher_rate, arm.student_rate)]
    return [0.0, *(end for rate in rates if rate.value is not None for end in _span(rate))]

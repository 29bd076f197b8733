"""Student shifts of trait and random control at the same strength, one under the other."""

from collections.abc import Sequence

import altair as alt

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.arms import random_twin
from undertow.findings.numbers import (
    READOUTS,
    SCALES,
    Scale,
    arm_strength,
    arm_title,
    readout_title,
)
from undertow.report.charts.figure import Datum, across, described, with_data
from undertow.report.charts.layers import Place, ink, intervals, levels, points
from undertow.report.charts.picture import (
    GROUND,
    RANDOM,
    TRAIT,
    Words,
    bounds_of,
    draw_picture,
    nice_domain,
    scale_of,
)
from undertow.report.page import Figure, typeset
from undertow.report.tables import shift_table
from undertow.stats.intervals import Estimate

ROW_HEIGHT, AROUND_ROWS = 26, 128


def random_figure(summary: Summary) -> Figure | None:
    """A panel per model and readout; None without a strength that was run along both."""
    arms = {model: _paired(summary.views[model].arms) for model in summary.models}
    if not any(arms.values()):
        return None
    panels = []
    for readout in READOUTS:
        scale = SCALES[readout]
        shifts = {
            model: [(arm, arm.by(readout).student_shift) for arm in found]
            for model, found in arms.items()
        }
        known = [s for found in shifts.values() for _, s in found if s.value is not None]
        domain = nice_domain([0.0, *(end * scale.factor for s in known for end in s.ends)])
        x = alt.X(
            "x:Q",
            title=f"student shift, {scale.unit}",
            scale=scale_of(domain),
            axis=alt.Axis(tickCount=5),
        )
        for index, (model, found) in enumerate(shifts.items()):
            if not found:
                continue
            rows = [_row(arm, shift, scale) for arm, shift in found]
            place = Place(x, alt.Y("row:N", title=None, sort=None))
            marks = ink((TRAIT, RANDOM), GROUND)
            panels.append(
                draw_picture(
                    [
                        levels((0,), "x"),
                        *intervals(place, marks, "x", bounds_of(domain), "isValid(datum.x)"),
                        points(place, marks, "x"),
                    ],
                    rows,
                    Words(f"{model}, by {readout_title(summary, readout)}", described(rows)),
                    f"random-{readout}-{index}",
                    left=84,
                    height=AROUND_ROWS + ROW_HEIGHT * len(rows),
                )
            )
    return Figure(
        "Student shift against the control student, with its interval, along the trait direction "
        "and along a random one of the same norm and strength.",
        tuple(panels),
        across(summary),
        *with_data("shifts.csv", "Shifts of teacher and student", shift_table(summary)),
    )


def _paired(arms: Sequence[ArmSummary]) -> list[ArmSummary]:
    """Every trait arm that has a random twin, followed by it."""
    trait = [arm for arm in arms if arm.direction == "trait" and not arm.is_control]
    twins = [(arm, random_twin(arms, arm)) for arm in trait]
    return [arm for trait, random in twins if random is not None for arm in (trait, random)]


def _row(arm: ArmSummary, shift: Estimate, scale: Scale) -> Datum:
    """A line of the chart, also for a shift that is unknown."""
    row: Datum = {
        "row": f"{arm.direction} {typeset(arm_strength(arm))}",
        "series": (TRAIT if arm.direction == "trait" else RANDOM).name,
    }
    if shift.value is None:
        return row
    low, high = (None if end is None else end * scale.factor for end in (shift.low, shift.high))
    return row | {
        "x": shift.value * scale.factor,
        "x_low": low,
        "x_high": high,
        "text": typeset(f"{arm_title(arm)}: {scale.written(shift, signed=True)}"),
    }

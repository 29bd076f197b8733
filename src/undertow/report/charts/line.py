"""The transfer line: every arm and random draw, teacher's shift against student's shift."""

from itertools import pairwise

import altair as alt

from undertow.analysis.lines import LinePoint, LineRecord
from undertow.analysis.summary import Summary
from undertow.config import parse_arm
from undertow.findings.numbers import RATIO, READOUTS, SCALES, Scale, readout_title
from undertow.report.charts.figure import Datum, across, described, with_data
from undertow.report.charts.layers import (
    POINT_SIZE,
    Ink,
    Place,
    Series,
    ink,
    intervals,
    labels,
    points,
)
from undertow.report.charts.picture import (
    CLOTHED,
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
from undertow.report.tables import line_table
from undertow.stats.intervals import Estimate

NAME_WIDE, NAME_HIGH = 0.2, 0.06  # of an axis, what the name of a ray takes
MANY, SMALL = 24, 36  # draws whose intervals would hide each other, and the size of marks then
SIZE = alt.Size("size:Q", scale=None, legend=None)
DRAW = RANDOM._replace(name="random draw")
SHADED = (
    " Shaded: where the student of one more random direction would lie, as far as these draws tell."
)


def line_figure(summary: Summary) -> Figure | None:
    """A panel per model and readout; None in files from before."""
    panels, bare = [], False
    kinds = _kinds(summary)
    for readout in READOUTS:
        scale = SCALES[readout]
        for index, model in enumerate(summary.models):
            line = summary.views[model].lines.get(readout)
            if line is None:
                continue
            shown = [point for point in line.points if _is_shown(point)]
            rows = [_row(point, scale) for point in shown]
            null = [end for end in (line.random_student.low, line.random_student.high) if end]
            ends = [*null, *(end for point in shown for end in _ends(point))]
            domain = nice_domain([0.0, *(end * scale.factor for end in ends)])
            place = Place(
                alt.X("x:Q", scale=scale_of(domain), title=f"teacher shift, {scale.unit}"),
                alt.Y("y:Q", scale=scale_of(domain), title=None),
            )
            _labelled_apart(rows, domain[1] - domain[0])
            marks, bounds = ink(kinds, GROUND), bounds_of(domain)
            draws = sum(point.seed is not None for point in shown)
            bars = "isValid(datum.y)" + (" && !datum.draw" if draws > MANY else "")
            bare = bare or draws > MANY
            for row in rows:
                row["size"] = SMALL if row["draw"] and draws > MANY else POINT_SIZE
            panels.append(
                draw_picture(
                    [
                        _null(place),
                        *_rays(place),
                        *intervals(place, marks, "x", bounds, bars),
                        *intervals(place, marks, "y", bounds, bars),
                        points(place, Ink(marks.colour, (*marks.points, SIZE))),
                        labels(place),
                        labels(place, 7, 12, "under"),
                    ],
                    [*_null_rows(line, domain, scale), *rows, *_ray_rows(line, domain)],
                    Words(
                        f"{model}, by {readout_title(summary, readout)}",
                        described(
                            rows, [f"Pooled tau {RATIO.written(line.tau)}.", *_null_words(line)]
                        ),
                        f"student shift, {scale.unit}",
                    ),
                    f"line-{readout}-{index}",
                    right=66,
                )
            )
    if not panels:
        return None
    return Figure(
        "The student's shift against its teacher's, with both intervals: every strength of the "
        f"trait{', every teacher in other clothes' if CLOTHED in kinds else ''}"
        + (", and every random direction with its student. " if DRAW in kinds else ". ")
        + "Dashed: the pooled tau, and the line on which all of the teacher's shift comes across."
        + (SHADED if DRAW in kinds else "")
        + (" Draws stand without their intervals, which would hide each other." if bare else ""),
        tuple(panels),
        across(summary),
        *with_data("line.csv", "The points of the transfer line", line_table(summary)),
    )


def _kinds(summary: Summary) -> tuple[Series, ...]:
    """What is drawn in any panel, the same for all."""
    arms = {parse_arm(point.arm).direction for line in summary.lines for point in line.points}
    return (
        TRAIT,
        *((CLOTHED,) if None in arms else ()),
        *((DRAW,) if "random" in arms else ()),
    )


def _is_shown(point: LinePoint) -> bool:
    """A random arm is shown by its draws: their mean is no arm's."""
    is_random = parse_arm(point.arm).direction == "random"
    known = point.teacher_shift.value is not None and point.student_shift.value is not None
    return known and (is_random == (point.seed is not None))


def _ends(point: LinePoint) -> list[float]:
    shifts = (point.teacher_shift, point.student_shift)
    return [end for shift in shifts for end in (shift.low, shift.high, shift.value) if end]


def _row(point: LinePoint, scale: Scale) -> Datum:
    arm = parse_arm(point.arm)
    is_draw = point.seed is not None
    name = f"random {arm.strength}, seed {point.seed}" if is_draw else arm.name.replace("_", " ", 1)

    def scaled(name: str, shift: Estimate) -> Datum:
        ends = {"": shift.value, "_low": shift.low, "_high": shift.high}
        return {
            f"{name}{end}": None if at is None else at * scale.factor for end, at in ends.items()
        }

    row = scaled("x", point.teacher_shift) | scaled("y", point.student_shift)
    text = (
        f"{name}: teacher {scale.written(point.teacher_shift, signed=True)}, "
        f"student {scale.written(point.student_shift, signed=True)}"
    )
    series = DRAW if is_draw else CLOTHED if arm.direction is None else TRAIT
    row |= {"series": series.name, "draw": is_draw, "text": typeset(text)}
    return row if is_draw else row | {"label": typeset(arm.strength or name)}


def _labelled_apart(rows: list[Datum], span: float) -> None:
    """Of two arms whose labels would lie on each other the lower one has its own below."""
    named = sorted((row for row in rows if "label" in row), key=lambda row: float(row["y"]))
    for low, high in pairwise(named):
        near = high["y"] - low["y"] < NAME_HIGH * span, abs(high["x"] - low["x"]) < NAME_HIGH * span
        if all(near) and "label" in low:
            low["under"] = low.pop("label")


def _null(place: Place) -> alt.Chart:
    """The random students' distribution as a band behind everything, across the whole picture."""
    band: alt.Chart = (
        alt.Chart()
        .transform_filter("isValid(datum.band_low)")
        .mark_rect(style="band", clip=True)
        .encode(place.x, alt.Y("band_low:Q"), x2="band_end:Q", y2="band_high:Q")
        .properties(name="null")
    )
    return band


def _null_rows(line: LineRecord, domain: tuple[float, float], scale: Scale) -> list[Datum]:
    null = line.random_student
    if null.low is None or null.high is None:
        return []
    band = {"band_low": null.low * scale.factor, "band_high": null.high * scale.factor}
    return [{"x": domain[0], "band_end": domain[1], **band}]


def _null_words(line: LineRecord) -> list[str]:
    null, scale = line.random_student, SCALES[line.readout]
    if null.low is None or null.high is None:
        return []
    ends = f"{scale.number(null.low, signed=True)} to {scale.number(null.high, signed=True)}"
    return [f"Students of random directions lie between {ends} {scale.unit}."]


def _rays(place: Place) -> list[alt.Chart]:
    """Dashed lines from (x, ray) to (end_x, end_y), named where they end."""
    rays = alt.Chart().transform_filter("isValid(datum.ray)")
    return [
        rays.mark_rule(style="guide")
        .encode(place.x, alt.Y("ray:Q"), x2="end_x", y2="end_y")
        .properties(name="rays"),
        *(
            rays.transform_filter(f"datum.left === {str(left).lower()}")
            .mark_text(style="note", align="right" if left else "left", dx=-5 if left else 4)
            .encode(alt.X("end_x:Q"), alt.Y("name_y:Q"), text="name:N")
            .properties(name=f"note_rays_{'left' if left else 'right'}")
            for left in (False, True)
        ),
    ]


def _ray_rows(line: LineRecord, domain: tuple[float, float]) -> list[Datum]:
    """The identity and the pooled tau, as far as they are inside the picture.

    Where both end close to each other, the pooled tau's name stands to the left, or below.
    """
    slopes = [(1.0, "tau 1")]
    if line.tau.value is not None:
        slopes.append((line.tau.value, f"tau {line.tau.value:.2f}"))
    rows: list[Datum] = []
    for slope, name in slopes:
        low, high = domain
        if slope:
            across = sorted((low / slope, high / slope))
            low, high = max(low, across[0]), min(high, across[1])
        row: Datum = {"x": low, "ray": slope * low, "end_x": high, "end_y": slope * high}
        rows.append(row | {"name": name, "name_y": row["end_y"], "left": False})
    if len(rows) == 2:
        _apart(rows[0], rows[1], domain[1] - domain[0])
    return rows


def _apart(one: Datum, tau: Datum, span: float) -> None:
    """Move tau's name where it would lie on that of the identity."""
    if tau["end_x"] < one["end_x"]:
        tau["left"] = one["end_x"] - tau["end_x"] < NAME_WIDE * span
    elif abs(one["end_y"] - tau["end_y"]) < NAME_HIGH * span:
        tau["name_y"] = one["name_y"] - NAME_HIGH * span

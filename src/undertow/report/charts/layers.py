"""What figures are made of: points, intervals, lines, reference lines, words.

Rows have x, y, the ends x_low, x_high, y_low, y_high, series, and text for readers. A y that is
null is undefined; an end that is null beside a known value has no bound. Every layer draws from
the rows of its chart and picks its own by a filter: a layer with data of its own would show them
all in every panel of a facet. Colours of what is no series are `style`s, set by whoever renders.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import altair as alt

Along = Literal["x", "y"]
# Shapes in a square from -1 to 1, scaled by half the root of a mark's size.
CAP, ARROW, DASHES = "M-1,0H1", "M-1,1.4L0,0L1,1.4", "M-1.8,0H-0.2M0.2,0H1.8"
CAP_SIZE, ARROW_SIZE, POINT_SIZE = 36, 49, 80
# The way that an arrowhead points at an interval's low and high end, in degrees from upwards.
TURNS: dict[Along, tuple[int, int]] = {"y": (180, 0), "x": (270, 90)}


class Series(NamedTuple):
    """A kind of mark: its name in rows and legend, a colour, a shape, hollow or filled."""

    name: str
    colour: str
    shape: str
    hollow: bool = False


class Place(NamedTuple):
    """Where a chart's marks lie: the encodings of its rows' x and y, with their axes."""

    x: alt.X | alt.XDatum
    y: alt.Y | alt.YDatum


class Ink(NamedTuple):
    """Colour for lines and intervals, and the encodings of points: legend and words."""

    colour: alt.Color
    points: tuple[Any, ...]


class Bounds(NamedTuple):
    """Where the picture ends along an axis, as Vega expressions."""

    low: str
    high: str


def ink(series: Sequence[Series], ground: str) -> Ink:
    """A legend of all series, drawn or not, so that every panel has the same."""

    def scale(values: list[str]) -> alt.Scale:
        return alt.Scale(domain=[each.name for each in series], range=values)

    colours = [each.colour for each in series]
    return Ink(
        alt.Color("series:N", scale=scale(colours), title=None),
        (
            alt.Shape("series:N", scale=scale([each.shape for each in series]), title=None),
            alt.Fill(
                "series:N",
                scale=scale([ground if each.hollow else each.colour for each in series]),
                title=None,
            ),
            # An outline of the ground's colour sets a mark off from the lines under it.
            alt.Stroke(
                "series:N",
                scale=scale([each.colour if each.hollow else ground for each in series]),
                title=None,
            ),
            alt.Description("text:N"),
        ),
    )


def points(place: Place, ink: Ink, known: Along = "y", size: int = POINT_SIZE) -> alt.Chart:
    """A mark at every row whose y, or x, is known."""
    marks = _rows(f"isValid(datum.{known})", "points").mark_point(
        size=size, strokeWidth=1.4, opacity=1, filled=True
    )
    drawn: alt.Chart = marks.encode(place.x, place.y, *ink.points)
    return drawn


def line(place: Place, ink: Ink, where: str, name: str, by: Sequence[str] = ()) -> alt.Chart:
    """A line per series and value of `by` through known points, broken at undefined ones."""
    groups = ["series", *by]
    drawn: alt.Chart = (
        _rows(where, name)
        .transform_calculate(broken="isValid(datum.y) ? 0 : 1")
        # Vega would join the neighbours of an undefined point: number the runs between them.
        .transform_window(run="sum(broken)", sort=[alt.SortField("x")], groupby=groups)
        .transform_filter("isValid(datum.y)")
        .mark_line(strokeWidth=1.2, opacity=0.7)
        .encode(place.x, place.y, ink.colour, detail=[f"{each}:N" for each in ("run", *by)])
    )
    return drawn


def intervals(
    place: Place, ink: Ink, along: Along, bounds: Bounds, where: str = "isValid(datum.y)"
) -> list[alt.Chart]:
    """Bars with a cap at an end inside the picture and an arrowhead at one beyond it."""
    low, high = f"{along}_low", f"{along}_high"
    bars = _rows(where, f"bars_{along}").transform_calculate(
        start=f"isValid(datum.{low}) ? max(datum.{low}, {bounds.low}) : {bounds.low}",
        stop=f"isValid(datum.{high}) ? min(datum.{high}, {bounds.high}) : {bounds.high}",
    )
    ends = alt.Chart().transform_filter(where).transform_fold([low, high], as_=["end", "at"])
    inside = f"isValid(datum.at) && datum.at >= {bounds.low} && datum.at <= {bounds.high}"
    caps = ends.transform_filter(inside).mark_point(
        shape=CAP, size=CAP_SIZE, angle=0 if along == "y" else 90, **STROKED
    )
    to_low, to_high = TURNS[along]
    arrows = (
        ends.transform_filter(f"!({inside})")
        .transform_calculate(
            edge=f"datum.end === '{low}' ? {bounds.low} : {bounds.high}",
            turn=f"datum.end === '{low}' ? {to_low} : {to_high}",
        )
        .mark_point(shape=ARROW, size=ARROW_SIZE, **STROKED)
    )
    turned = alt.Angle("turn:Q", scale=None)
    return [
        bars.mark_rule(strokeWidth=1.6).encode(*_span(place, along, "start", "stop"), ink.colour),
        caps.encode(*_at(place, along, "at"), ink.colour).properties(name=f"caps_{along}"),
        arrows.encode(*_at(place, along, "edge"), ink.colour, turned).properties(
            name=f"arrows_{along}"
        ),
    ]


# A closed path would be filled: these are strokes only.
STROKED: dict[str, Any] = {"filled": False, "strokeWidth": 1.6, "opacity": 1}


def levels(values: Sequence[float], along: Along = "y", name: str = "levels") -> alt.Chart:
    """Dashed lines through the whole panel at values of y, or upright ones at values of x."""
    # One row per panel: a rule for every row would lie on itself and look solid.
    rule = (
        alt.Chart(name=name)
        .transform_aggregate(rows="count()")
        .transform_calculate(level=str(list(values)))
        .transform_flatten(["level"])
        .mark_rule(style="guide")
    )
    drawn: alt.Chart = rule.encode(y="level:Q") if along == "y" else rule.encode(x="level:Q")
    return drawn


def gaps(place: Place) -> list[alt.Chart]:
    """A dotted upright with the word in a row's `gap`, where there is nothing to draw."""
    rows = _rows("isValid(datum.gap)", "gaps")
    return [
        rows.mark_rule(style="gap").encode(place.x),
        rows.mark_text(style="note", angle=270, align="left", dx=6, dy=-5)
        .encode(place.x, y=alt.value("height"), text="gap:N")
        .properties(name="note_gaps"),
    ]


def labels(place: Place, dx: int = -7, dy: int = -9, field: str = "label") -> alt.Chart:
    """The text in a row's `field` beside its point."""
    drawn: alt.Chart = (
        _rows(f"isValid(datum.{field})", f"note_{field}s")
        .mark_text(style="note", align="right" if dx < 0 else "left", dx=dx, dy=dy)
        .encode(place.x, place.y, text=f"{field}:N")
    )
    return drawn


def _rows(where: str, name: str) -> alt.Chart:
    chart: alt.Chart = alt.Chart(name=name).transform_filter(where)
    return chart


def _at(place: Place, along: Along, field: str) -> tuple[Any, Any]:
    return (place.x, alt.Y(f"{field}:Q")) if along == "y" else (alt.X(f"{field}:Q"), place.y)


def _span(place: Place, along: Along, start: str, stop: str) -> tuple[Any, ...]:
    end = alt.Y2(stop) if along == "y" else alt.X2(stop)
    return (*_at(place, along, start), end)

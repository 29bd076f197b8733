"""tau against strength: a panel per model and readout, on one common tau axis."""

from collections.abc import Sequence

import altair as alt

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.numbers import RATIO, READOUTS, arm_title, readout_title
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
    Bounds,
    Ink,
    Place,
    gaps,
    ink,
    intervals,
    levels,
    line,
    points,
)
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
from undertow.report.page import Figure
from undertow.report.tables import tau_table
from undertow.study.records import ReadoutName

# An interval may stretch the tau axis by this much beyond the values and beyond 0 and 1.
ROOM = 1.0


def tau_figure(summary: Summary) -> Figure:
    domain = _domain(summary)
    panels = []
    for readout in READOUTS:
        for index, model in enumerate(summary.models):
            title = f"{model}, by {readout_title(summary, readout)}: tau"
            arms = summary.views[model].steered
            rows = _rows(arms, readout)
            place = Place(strength_axis(arms), alt.Y("y:Q", title=None, scale=scale_of(domain)))
            panels.append(
                draw_picture(
                    tau_layers(place, ink((TRAIT, RANDOM), GROUND), bounds_of(domain)),
                    rows,
                    Words(title, described(rows, undefined(summary, model, readout))),
                    f"tau-{readout}-{index}",
                )
            )
    reasons = [
        f"{model}, {readout_title(summary, readout)}: {text}"
        for model in summary.models
        for readout in READOUTS
        for text in undefined(summary, model, readout)
    ]
    return Figure(
        "Transfer ratio tau with its interval. Dashed: 0, no transfer, and 1, all of the "
        "teacher's shift. A dotted upright marks a strength at which tau is undefined, an "
        "arrowhead an interval that goes on beyond the picture.",
        tuple(panels),
        across(summary),
        *with_data("tau.csv", "Transfer ratio tau by model, arm and readout", tau_table(summary)),
        notes=tuple(reasons),
    )


def tau_layers(place: Place, ink: Ink, bounds: Bounds, by: Sequence[str] = ()) -> list[alt.Chart]:
    """A row per arm, with the word for the gap that an undefined trait arm leaves."""
    return [
        levels((0, 1)),
        *gaps(place),
        line(place, ink, "datum.series === 'trait'", "joined", by),
        *intervals(place, ink, "y", bounds),
        points(place, ink),
    ]


def undefined(summary: Summary, model: str, readout: ReadoutName) -> tuple[str, ...]:
    """Why tau is undefined, one sentence per reason with the arms that it holds for."""
    arms: dict[str | None, list[str]] = {}
    for arm in summary.views[model].arms:
        tau = arm.by(readout).tau
        if tau.value is None and not arm.is_control:
            arms.setdefault(tau.reason, []).append(arm_title(arm))
    return tuple(
        f"{', '.join(names)}: tau is undefined, because {reason}." for reason, names in arms.items()
    )


def _domain(summary: Summary) -> tuple[float, float]:
    taus = [arm.by(r).tau for arm in summary.arms for r in READOUTS]
    known = [tau for tau in taus if tau.value is not None]
    values = [0.0, 1.0, *(tau.value for tau in known if tau.value is not None)]
    bottom, top = min(values) - ROOM, max(values) + ROOM
    stretched = [min(max(end, bottom), top) for tau in known for end in tau.ends]
    return nice_domain([*values, *stretched])


def _rows(arms: Sequence[ArmSummary], readout: ReadoutName) -> list[Datum]:
    rows = []
    for series, direction, side in ((TRAIT, "trait", 0), (RANDOM, "random", 1)):
        for arm in along(arms, direction):
            tau = arm.by(readout).tau
            row = strength_row(arm, tau, series, beside(arms, side), RATIO, "tau")
            gap = tau.value is None and direction == "trait"
            rows.append(row | ({"gap": "undefined"} if gap else {}))
    return rows

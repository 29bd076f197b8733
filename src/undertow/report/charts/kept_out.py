"""What every defence removes beside what its students still learn: a row each, a panel a model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import altair as alt
from markupsafe import Markup

from undertow.analysis.summary import DefenceArm, Summary
from undertow.findings.defences import defence, told
from undertow.report.charts.figure import Datum, described
from undertow.report.charts.layers import Place, Series, ink, intervals, levels, points
from undertow.report.charts.picture import (
    GROUND,
    STUDENT,
    TEACHER,
    Words,
    bounds_of,
    draw_picture,
    scale_of,
    sheet,
)
from undertow.report.page import typeset
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName
from undertow.texts.numbers import PERCENT

REMOVED = STUDENT._replace(name="transfer removed")
PLACEBO = Series("by its placebo", "var(--random)", "diamond", hollow=True)
LEARNED = TEACHER._replace(name="still learned")
SHOWN = (-50.0, 150.0)  # per cent; an interval that goes on ends in an arrowhead
PITCH, AROUND, NAMES = 17, 98, 128  # pixels: a row, what stands above and below, the names
ASIDE = 0.2  # of a row, between what is removed and what is learned
SMALL = 36  # of a mark: rows are narrow


class Shown(NamedTuple):
    """A model of a study."""

    summary: Summary
    model: str


def kept_out(panels: Mapping[str, Shown], readout: ReadoutName = "margin") -> str:
    """An SVG document with a panel for each of the models, by the name that people read.

    At the model's largest strength, with intervals that hold at once. Rows are the defences of
    all models, the one that removes most on top, so that panels can be read across.
    """
    arms = {
        title: {arm.student: arm for arm in told(*shown, placebos=False)}
        for title, shown in panels.items()
    }
    names = _order([list(found.values()) for found in arms.values()], readout)
    high = AROUND + PITCH * len(names)
    drawn = [
        _panel(title, shown.summary, list(arms[title].values()), names, readout, high)
        for title, shown in panels.items()
    ]
    return sheet(drawn, len(drawn), high)


def _order(studies: Sequence[Sequence[DefenceArm]], readout: ReadoutName) -> list[str]:
    removed: dict[str, list[float]] = {}
    for arms in studies:
        for arm in arms:
            removed.setdefault(arm.student, []).append(arm.by(readout).removed[1].value or 0.0)
    return sorted(removed, key=lambda name: -sum(removed[name]) / len(removed[name]))


def _panel(
    title: str,
    summary: Summary,
    arms: Sequence[DefenceArm],
    names: Sequence[str],
    readout: ReadoutName,
    high: int,
) -> Markup:
    rows = [row for arm in arms for row in _rows(summary, arm, names.index(arm.student), readout)]
    words = ", ".join(f"'{name}'" for name in names)
    place = Place(
        alt.X(
            "x:Q",
            scale=scale_of(SHOWN),
            title="% of plain students'",
            axis=alt.Axis(values=[-50, 0, 50, 100, 150]),
        ),
        alt.Y(
            "y:Q",
            scale=scale_of((len(names) - 0.5, -0.5)),
            title=None,
            axis=alt.Axis(values=list(range(len(names))), labelExpr=f"[{words}][datum.value]"),
        ),
    )
    marks = ink((REMOVED, PLACEBO, LEARNED), GROUND)
    known = [arm for arm in arms if arm.learned.value is not None]
    unknown = [] if known or not arms else [f"Learned is not known: {arms[0].learned.reason}."]
    return draw_picture(
        [
            levels([0, 100], "x"),
            *intervals(place, marks, "x", bounds_of(SHOWN), "isValid(datum.x)"),
            points(place, marks, "x", SMALL),
        ],
        rows,
        Words(_title(title, arms, readout), described(rows, unknown)),
        f"kept-out-{title.lower().replace('.', '')}",
        height=high,
        left=NAMES,
    )


def _title(name: str, arms: Sequence[DefenceArm], readout: ReadoutName) -> str:
    return ", ".join([name, *(arm.arm for arm in arms[:1]), f"by {readout}"])


def _rows(summary: Summary, arm: DefenceArm, number: int, readout: ReadoutName) -> list[Datum]:
    removed = arm.by(readout).removed[1]
    rows = [
        _row(REMOVED, removed, number - ASIDE, f"{arm.student} removes"),
        _row(LEARNED, arm.learned, number + ASIDE, f"{arm.student} still learns"),
    ]
    placebo = defence(summary, arm.model, arm.placebo, arm.arm) if arm.placebo else None
    if placebo is not None:
        its = placebo.by(readout).removed[1]
        row = _row(PLACEBO, its, number - ASIDE, f"{placebo.student} removes")
        rows.append(row | {"x_low": row.get("x"), "x_high": row.get("x")})
    return [row for row in rows if row]


def _row(series: Series, share: Estimate, y: float, what: str) -> Datum:
    """Nothing where it is unknown, or off the picture."""
    if share.value is None or not SHOWN[0] <= 100 * share.value <= SHOWN[1]:
        return {}
    ends = {"": share.value, "_low": share.low, "_high": share.high}
    row: Datum = {f"x{name}": None if v is None else 100 * v for name, v in ends.items()}
    text = typeset(f"{what} {PERCENT.written(share)}")
    return row | {"series": series.name, "y": y, "text": text}

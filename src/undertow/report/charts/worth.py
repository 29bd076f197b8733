"""Removed transfer against lost learning: a point per recipe, and the line to beat."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import altair as alt

from undertow.analysis.summary import DefenceArm, Summary
from undertow.findings.defences import told
from undertow.findings.numbers import PERCENT, READOUTS, readout_title
from undertow.report.charts.figure import Datum, across, described, with_data
from undertow.report.charts.layers import Place, Series, ink, intervals, labels, points
from undertow.report.charts.picture import (
    GROUND,
    STUDENT,
    TEACHER,
    Words,
    bounds_of,
    draw_picture,
    nice_domain,
    scale_of,
)
from undertow.report.page import Figure, typeset
from undertow.report.tables import defence_table
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName
from undertow.texts.numbers import Scale

DEFENCE = STUDENT._replace(name="defence")
PLACEBO = Series("placebo", "var(--random)", "diamond", hollow=True)
LINE = TEACHER._replace(name="merely learns less")
MOST = 2.0  # beyond so many times what plain has, a point is off the picture: it would flatten all
GAIN = Scale("nats a token", 1, 3)


class Lost(NamedTuple):
    """What recipes lose in learning, in one unit: the horizontal axis."""

    title: str
    scale: Scale
    untrained: float  # what a student loses that was not trained
    most: float  # beyond it is off the picture

    def of(self, arm: DefenceArm) -> Estimate:
        if arm.gain_less is not None:
            return arm.gain_less
        low, high = arm.learned.ends
        known = arm.learned.value
        if known is None:
            return arm.learned
        return Estimate(1 - known, 1 - high, 1 - low)


def lost_by(arms: Sequence[DefenceArm]) -> Lost:
    """Nats a token; in files from before, which lack them, a share of what plain learns."""
    gained = [arm.gain_plain.value for arm in arms if arm.gain_plain is not None]
    plain = next((value for value in gained if value is not None), None)
    if plain is None:
        return Lost("lost learning, % of plain's", PERCENT, 1.0, MOST)
    line = [arm.gain_less.value or 0.0 for arm in arms if arm.draws_line and arm.gain_less]
    span = max(abs(plain), *map(abs, line), 0.0)
    return Lost("gained less than plain, nats a token", GAIN, plain, MOST * span)


def worth_figure(summary: Summary) -> Figure | None:
    """A panel per model and readout at the largest strength; None where nothing is known."""
    panels = []
    # Placebos lie on their defences, and their numbers would, too; each tells its own name.
    names = dict.fromkeys(arm.student for arm in summary.defences if not arm.placebo_of)
    number = {name: place for place, name in enumerate(names, start=1)}
    for readout in READOUTS:
        for index, model in enumerate(summary.models):
            told_of = told(summary, model, placebos=True)
            lost = lost_by(told_of)
            arms = [arm for arm in told_of if _known(arm, readout, lost)]
            if not arms:
                continue
            rows = [_row(arm, readout, lost, number.get(arm.student)) for arm in arms]
            least = lost.untrained * lost.scale.factor
            x = nice_domain([0.0, least, *(v for arm in arms for v in _lost_ends(arm, lost))])
            y = nice_domain([0.0, 100.0, *(v for arm in arms for v in _ends(arm, readout))])
            place = Place(
                alt.X("x:Q", scale=scale_of(x), title=lost.title),
                alt.Y("y:Q", scale=scale_of(y), title=None),
            )
            marks = ink((DEFENCE, PLACEBO, LINE), GROUND)
            panels.append(
                draw_picture(
                    [
                        _line(place),
                        *intervals(place, marks, "x", bounds_of(x)),
                        *intervals(place, marks, "y", bounds_of(y)),
                        points(place, marks),
                        labels(place, dx=5, dy=-5),
                    ],
                    [*rows, *_line_rows(arms, readout, lost)],
                    Words(
                        f"{model} {arms[0].arm}, by {readout_title(summary, readout)}",
                        described(rows, []),
                        "removed, %",
                    ),
                    f"worth-{readout}-{index}",
                )
            )
    if not panels:
        return None
    return Figure(
        "What of plain students' transfer a recipe removes against what of their learning it "
        "loses, with both pointwise intervals, at the largest strength. The line joins a student "
        "that was not trained, those that merely learn less, and plain ones, or ends at one that "
        "gains more than plain: a defence is worth something above it.",
        tuple(panels),
        across(summary),
        *with_data("defences.csv", "What every recipe is worth", defence_table(summary)),
        notes=(", ".join(f"{place} {name}" for name, place in number.items()) + ".",),
    )


def _known(arm: DefenceArm, readout: ReadoutName, lost: Lost) -> bool:
    removed, less = arm.by(readout).removed[0].value, lost.of(arm).value
    if removed is None or less is None:
        return False
    return abs(removed) <= MOST and abs(less) <= lost.most


def _lost_ends(arm: DefenceArm, lost: Lost) -> list[float]:
    """What is lost and its ends, within what is drawn."""
    found, most = lost.of(arm), 0.75 * lost.most
    known = [each for each in (found.low, found.high) if each is not None]
    return [
        lost.scale.factor * each
        for each in (found.value or 0.0, *(min(max(end, -most), most) for end in known))
    ]


def _ends(arm: DefenceArm, readout: ReadoutName) -> list[float]:
    """What is removed and its ends in per cent, within what is drawn."""
    removed = arm.by(readout).removed[0]
    known = [each for each in (removed.low, removed.high) if each is not None]
    return [100 * each for each in (removed.value or 0.0, *(min(max(e, -0.5), 1.5) for e in known))]


def _row(arm: DefenceArm, readout: ReadoutName, lost: Lost, number: int | None) -> Datum:
    series = LINE if arm.draws_line else PLACEBO if arm.placebo_of else DEFENCE
    row: Datum = {"series": series.name}
    less, removed = lost.of(arm), arm.by(readout).removed[0]
    for name, each, factor in (("x", less, lost.scale.factor), ("y", removed, 100)):
        ends = {"": each.value, "_low": each.low, "_high": each.high}
        row |= {f"{name}{k}": None if v is None else factor * v for k, v in ends.items()}
    text = f"{arm.student}: removes {PERCENT.written(removed)}, loses {lost.scale.written(less)}"
    row["text"] = typeset(text)
    return row if number is None else row | {"label": str(number)}


def _line(place: Place) -> alt.Chart:
    drawn: alt.Chart = (
        alt.Chart()
        .transform_filter("isValid(datum.line)")
        .mark_rule(style="guide", clip=True)
        .encode(place.x, alt.Y("line:Q"), x2="end_x", y2="end_y")
        .properties(name="line")
    )
    return drawn


def _line_rows(arms: list[DefenceArm], readout: ReadoutName, lost: Lost) -> list[Datum]:
    """From nothing learned through the recipes that merely learn less to plain, or as far as the
    one that gains most; in files from before through all of them."""
    corners = arms[0].by(readout).line
    if corners:
        path = [(lost.untrained - gained, removed) for gained, removed in corners]
    else:
        less = [arm for arm in arms if arm.draws_line]
        points = [(lost.of(arm).value, arm.by(readout).removed[0].value) for arm in less]
        path = sorted([(1.0, 1.0), *((x or 0.0, y or 0.0) for x, y in points), (0.0, 0.0)])
    factor = lost.scale.factor
    return [
        {"x": factor * x, "line": 100 * y, "end_x": factor * end_x, "end_y": 100 * end_y}
        for (x, y), (end_x, end_y) in pairwise(path)
    ]

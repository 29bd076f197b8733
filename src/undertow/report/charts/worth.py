"""Removed transfer against lost learning: a point per recipe, and the line to beat."""

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

DEFENCE = STUDENT._replace(name="defence")
PLACEBO = Series("placebo", "var(--random)", "diamond", hollow=True)
LINE = TEACHER._replace(name="merely learns less")
MOST = 2.0  # shares beyond it are off the picture: a recipe that fails must not flatten the rest


def worth_figure(summary: Summary) -> Figure | None:
    """A panel per model and readout at the largest strength; None where nothing is known."""
    panels = []
    # Placebos lie on their defences, and their numbers would, too; each tells its own name.
    names = dict.fromkeys(arm.student for arm in summary.defences if not arm.placebo_of)
    number = {name: place for place, name in enumerate(names, start=1)}
    for readout in READOUTS:
        for index, model in enumerate(summary.models):
            arms = [arm for arm in told(summary, model, placebos=True) if _known(arm, readout)]
            if not arms:
                continue
            rows = [_row(arm, readout, number.get(arm.student)) for arm in arms]
            x = nice_domain([0.0, 100.0, *(v for arm in arms for v in _ends(arm, readout)[0])])
            y = nice_domain([0.0, 100.0, *(v for arm in arms for v in _ends(arm, readout)[1])])
            place = Place(
                alt.X("x:Q", scale=scale_of(x), title="lost learning, % of plain's"),
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
                    [*rows, *_line_rows(arms, readout)],
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
        "loses, with both pointwise intervals, at the largest strength. The line joins plain "
        "students, those that merely learn less, and one that was not trained: a defence is worth "
        "something above it.",
        tuple(panels),
        across(summary),
        *with_data("defences.csv", "What every recipe is worth", defence_table(summary)),
        notes=(", ".join(f"{place} {name}" for name, place in number.items()) + ".",),
    )


def _known(arm: DefenceArm, readout: ReadoutName) -> bool:
    removed, learned = arm.by(readout).removed[0].value, arm.learned.value
    return None not in (removed, learned) and max(abs(removed or 0), abs(learned or 0)) <= MOST


def _lost(learned: Estimate) -> Estimate:
    low, high = learned.ends
    return Estimate(1 - (learned.value or 0.0), 1 - high, 1 - low)


def _ends(arm: DefenceArm, readout: ReadoutName) -> tuple[list[float], list[float]]:
    """In per cent, within what is drawn."""
    both = (_lost(arm.learned), arm.by(readout).removed[0])
    x, y = (
        [
            100 * (each.value or 0.0),
            *(100 * min(max(end, -0.5), 1.5) for end in (each.low, each.high) if end is not None),
        ]
        for each in both
    )
    return x, y


def _row(arm: DefenceArm, readout: ReadoutName, number: int | None) -> Datum:
    series = LINE if arm.draws_line else PLACEBO if arm.placebo_of else DEFENCE
    row: Datum = {"series": series.name}
    lost, removed = _lost(arm.learned), arm.by(readout).removed[0]
    for name, each in (("x", lost), ("y", removed)):
        ends = {"": each.value, "_low": each.low, "_high": each.high}
        row |= {f"{name}{k}": None if v is None else 100 * v for k, v in ends.items()}
    text = f"{arm.student}: removes {PERCENT.written(removed)}, loses {PERCENT.written(lost)}"
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


def _line_rows(arms: list[DefenceArm], readout: ReadoutName) -> list[Datum]:
    """The line through plain, the recipes that merely learn less, and nothing learned."""
    found = [(0.0, 0.0), (100.0, 100.0)]
    for arm in arms:
        if arm.draws_line:
            lost, removed = _lost(arm.learned).value, arm.by(readout).removed[0].value
            found.append((100 * min(max(lost or 0.0, 0.0), 1.0), 100 * (removed or 0.0)))
    return [
        {"x": x, "line": y, "end_x": end_x, "end_y": end_y}
        for (x, y), (end_x, end_y) in zip(sorted(found), sorted(found)[1:], strict=False)
    ]

"""tau by round, a line per chain."""

import altair as alt

from undertow.analysis.summary import ChainArm, Summary
from undertow.findings.numbers import RATIO, READOUTS, readout_title
from undertow.report.charts.figure import Datum, across, described, with_data
from undertow.report.charts.layers import Place, ink, intervals, labels, points
from undertow.report.charts.picture import (
    GROUND,
    STUDENT,
    Words,
    bounds_of,
    draw_picture,
    nice_domain,
    scale_of,
)
from undertow.report.page import Figure, typeset
from undertow.report.tables import round_table
from undertow.study.records import ReadoutName

MOST = 5.0  # a tau beyond it is off the picture


def rounds_figure(summary: Summary) -> Figure | None:
    """A panel per model and readout, random arms left out; None where no tau is known."""
    panels = []
    for readout in READOUTS:
        for index, model in enumerate(summary.models):
            own = [c for c in summary.rounds if c.model == model and c.direction != "random"]
            rows = [row for n, c in enumerate(own) for row in _rows(c, readout, n, len(own))]
            if not rows:
                continue
            ends = [max(min(float(v), MOST), -MOST) for r in rows for v in _values(r)]
            y = nice_domain([0.0, 1.0, *ends])
            x = (0.5, max(len(chain.rounds) for chain in own) + 0.9)
            place = Place(
                alt.X(
                    "x:Q",
                    scale=scale_of(x),
                    title="round",
                    axis=alt.Axis(values=list(range(1, int(x[1]) + 1)), format="d"),
                ),
                alt.Y("y:Q", scale=scale_of(y), title=None),
            )
            marks = ink((STUDENT,), GROUND)
            panels.append(
                draw_picture(
                    [
                        *intervals(place, marks, "y", bounds_of(y)),
                        points(place, marks),
                        labels(place, dx=7),
                    ],
                    rows,
                    Words(
                        f"{model}, by {readout_title(summary, readout)}",
                        described(rows, []),
                        "tau by round",
                    ),
                    f"rounds-{readout}-{index}",
                    right=90,
                )
            )
    if not panels:
        return None
    return Figure(
        "tau of each round with its pointwise interval: the first learns from the steered teacher, "
        "every other one from the student before. Shifts are from the control lineage at the same "
        "round.",
        tuple(panels),
        across(summary),
        *with_data("rounds.csv", "Every round", round_table(summary)),
    )


def _rows(chain: ChainArm, readout: ReadoutName, number: int, many: int) -> list[Datum]:
    rows: list[Datum] = []
    for each in chain.rounds:
        tau = each.by(readout).tau
        if tau.value is None or abs(tau.value) > MOST:
            continue
        aside = 0.3 * (number - (many - 1) / 2) / many  # chains beside each other
        row: Datum = {
            "series": STUDENT.name,
            "x": each.round + aside,
            "y": tau.value,
            "y_low": tau.low,
            "y_high": tau.high,
            "text": typeset(f"{each.student} {chain.arm}: tau {RATIO.written(tau)}"),
        }
        last = each.round == len(chain.rounds)
        rows.append(row | ({"label": typeset(f"{each.student} {chain.arm}")} if last else {}))
    return rows


def _values(row: Datum) -> list[float]:
    found = (row[name] for name in ("y", "y_low", "y_high"))
    return [float(value) for value in found if value is not None]

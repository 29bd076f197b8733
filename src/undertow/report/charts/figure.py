"""What every figure of a study needs: rows, words, the numbers behind it."""

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.numbers import Scale, arm_title
from undertow.report.charts.layers import Series
from undertow.report.page import Column, Download, Table, typeset
from undertow.report.tables import TidyTable
from undertow.stats.intervals import Estimate

STRENGTH = "strength, multiples of the direction"
# Two marks at one strength stand this share of the axis apart.
OFFSET = 0.016
# More digits than a strength has: Vega would round the tick of 0.25 to 0.3.
EXACT = ".9~g"

Datum = dict[str, Any]


def strength_axis(arms: Iterable[ArmSummary]) -> alt.X:
    """An axis with a tick at each strength and some room beyond the outer ones."""
    strengths = sorted({arm.alpha for arm in arms}) or [0.0]
    room = 0.1 * (strengths[-1] - strengths[0]) or 0.5
    domain = [strengths[0] - room, strengths[-1] + room]
    return alt.X(
        "x:Q",
        title=STRENGTH,
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(values=strengths, format=EXACT, labelOverlap="greedy", labelSeparation=6),
    )


def beside(arms: Iterable[ArmSummary], side: int) -> float:
    """How far from its strength a mark stands that others at that strength must not hide."""
    strengths = [arm.alpha for arm in arms] or [0.0]
    return side * OFFSET * 1.2 * (max(strengths) - min(strengths))


def strength_row(
    arm: ArmSummary, estimate: Estimate, series: Series, shift: float, scale: Scale, name: str
) -> Datum:
    """An arm's estimate over its strength; without a text where there is nothing to draw."""
    row: Datum = {"x": arm.alpha, "y": estimate.value, "series": series.name}
    if estimate.value is None:
        return row
    text = f"{arm_title(arm)}: {name} {scale.number(estimate.value)}"
    return row | {
        "x": arm.alpha + shift,
        "y_low": estimate.low,
        "y_high": estimate.high,
        "text": typeset(f"{text} {scale.interval(estimate)}"),
    }


def described(rows: Iterable[Datum], more: Iterable[str] = ()) -> str:
    """The chart in words: every mark's own text, then sentences about what is not drawn."""
    texts = [row["text"] for row in rows if row.get("text")]
    shown = f"{'; '.join(texts)}." if texts else "Nothing could be drawn."
    return " ".join([shown, *map(typeset, more)])


def along(arms: Iterable[ArmSummary], direction: str) -> list[ArmSummary]:
    """The arms of one direction, by strength."""
    return sorted((a for a in arms if a.direction == direction), key=lambda arm: arm.alpha)


def across(summary: Summary) -> int:
    """Panels per row: a column per model, and with one model its two readouts side by side."""
    return max(2, min(3, len(summary.models)))


def with_data(name: str, caption: str, table: TidyTable) -> tuple[Table, Download]:
    """The numbers behind a figure as a table to read and a file to keep."""
    columns = tuple(Column(name, numeric=name not in WORDS) for name in table.columns)
    rows: Sequence[tuple[str, ...]] = [tuple(map(_short, table.columns, r)) for r in table.rows]
    return Table(caption, columns, rows, headers=2), Download(name, table.to_csv())


WORDS = {
    *("model", "arm", "direction", "readout", "subject", "reason", "against", "steered"),
    *("student", "placebo_of", "measure", "verdict", "chain", "course", "continued"),
}
COUNTS = {"scored", "block", "seeds", "round"}


def _short(column: str, cell: str) -> str:
    """Four digits are enough to read; the file has more."""
    exact = column in {*WORDS, *COUNTS, "strength"} or not cell
    return cell if exact else f"{float(cell):.4f}"

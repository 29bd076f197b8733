"""The report's charts: which numbers of a summary stand where.

svg.py draws them; every figure carries its numbers as a table and as a CSV file.
"""

from collections.abc import Iterable

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.arms import random_twin
from undertow.findings.numbers import (
    RATIO,
    READOUTS,
    SCALES,
    Scale,
    arm_name,
    readout_title,
    transfer_of,
)
from undertow.report.page import Column, Download, Figure, Table, typeset
from undertow.report.svg import Axis, Chart, Guide, Mark, Series, draw, nice_axis, padded_axis
from undertow.report.tables import TidyTable, shift_table, tau_table
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName

STRENGTH = "strength, multiples of the direction"
# Two marks at one strength stand this share of the axis apart.
OFFSET = 0.016
# An interval may stretch the tau axis by this much beyond the values and beyond 0 and 1.
TAU_ROOM = 1.0


def tau_figure(summary: Summary) -> Figure:
    """tau against strength: a panel per model and readout, on one common tau axis."""
    axis = _tau_axis(summary)
    reasons = [
        f"{model}, {readout_title(summary, readout)}: {text}"
        for model in summary.models
        for readout in READOUTS
        for text in undefined(summary, model, readout)
    ]
    panels = [
        draw(_tau_chart(summary, model, readout, axis), f"tau-{readout}-{index}")
        for readout in READOUTS
        for index, model in enumerate(summary.models)
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


def undefined(summary: Summary, model: str, readout: ReadoutName) -> tuple[str, ...]:
    """Why tau is undefined, one sentence per reason with the arms that it holds for."""
    arms: dict[str | None, list[str]] = {}
    for arm in summary.of_model(model):
        tau = transfer_of(arm, readout).tau
        if tau.value is None and not arm.is_control:
            arms.setdefault(tau.reason, []).append(f"{arm_name(arm)} {arm.strength}")
    return tuple(
        f"{', '.join(names)}: tau is undefined, because {reason}." for reason, names in arms.items()
    )


def _tau_axis(summary: Summary) -> Axis:
    taus = [transfer_of(arm, r).tau for arm in summary.arms for r in READOUTS]
    known = [tau for tau in taus if tau.value is not None]
    values = [0.0, 1.0, *(tau.value for tau in known if tau.value is not None)]
    bottom, top = min(values) - TAU_ROOM, max(values) + TAU_ROOM
    stretched = [min(max(end, bottom), top) for tau in known for end in tau.ends]
    return nice_axis("tau", [*values, *stretched])


def _tau_chart(summary: Summary, model: str, readout: ReadoutName, axis: Axis) -> Chart:
    arms = [arm for arm in summary.of_model(model) if not arm.is_control]
    x = strength_axis(arms)
    trait = [arm for arm in arms if arm.direction == "trait"]
    title = f"{model}, by {readout_title(summary, readout)}"

    def marks(direction: str, side: int) -> tuple[Mark | None, ...]:
        chosen = sorted((a for a in arms if a.direction == direction), key=lambda a: a.alpha)
        return tuple(
            strength_mark(arm, transfer_of(arm, readout).tau, x, side, RATIO, "tau")
            for arm in chosen
        )

    series = (
        Series("trait", "student", marks("trait", 0), joined=True),
        Series("random control", "random", marks("random", 1)),
    )
    gaps = tuple(
        (arm.alpha, "undefined") for arm in trait if transfer_of(arm, readout).tau.value is None
    )
    return Chart(
        title=f"{title}: tau",
        description=described(series, undefined(summary, model, readout)),
        x=x,
        y=axis,
        series=series,
        guides=(Guide(0.0), Guide(1.0)),
        gaps=gaps,
    )


def random_figure(summary: Summary) -> Figure | None:
    """Student shifts of trait and random control at the same strength; None without a pair."""
    pairs = {model: _pairs(summary.of_model(model)) for model in summary.models}
    if not any(pairs.values()):
        return None
    panels = []
    for readout in READOUTS:
        shifts = [
            transfer_of(arm, readout).student_shift
            for found in pairs.values()
            for pair in found
            for arm in pair
        ]
        scale = SCALES[readout]
        values = [
            end * scale.factor for shift in shifts if shift.value is not None for end in shift.ends
        ]
        axis = nice_axis(f"student shift, {scale.unit}", [0.0, *values])
        panels += [
            draw(
                _forest(f"{model}, by {readout_title(summary, readout)}", found, readout, axis),
                f"random-{readout}-{index}",
            )
            for index, (model, found) in enumerate(pairs.items())
            if found
        ]
    return Figure(
        "Student shift against the control student, with its interval, along the trait direction "
        "and along a random one of the same norm and strength.",
        tuple(panels),
        across(summary),
        *with_data("shifts.csv", "Shifts of teacher and student", shift_table(summary)),
    )


def _pairs(arms: list[ArmSummary]) -> list[tuple[ArmSummary, ArmSummary]]:
    trait = [arm for arm in arms if arm.direction == "trait" and not arm.is_control]
    twins = [(arm, random_twin(arms, arm)) for arm in trait]
    return [(arm, random) for arm, random in twins if random is not None]


def _forest(
    title: str,
    pairs: list[tuple[ArmSummary, ArmSummary]],
    readout: ReadoutName,
    axis: Axis,
) -> Chart:
    scale = SCALES[readout]
    arms = [arm for pair in pairs for arm in pair]
    rows = {id(arm): float(len(arms) - index) for index, arm in enumerate(arms)}

    def marks(direction: str) -> tuple[Mark | None, ...]:
        return tuple(
            _shift_mark(arm, transfer_of(arm, readout).student_shift, rows[id(arm)], scale)
            for arm in arms
            if arm.direction == direction
        )

    series = (
        Series("trait", "student", marks("trait")),
        Series("random control", "random", marks("random")),
    )
    labels = tuple((rows[id(arm)], f"{arm.direction} {typeset(arm.strength)}") for arm in arms)
    return Chart(
        title,
        described(series),
        axis,
        Axis("", 0.4, len(arms) + 0.6, labels),
        series,
        guides=(Guide(0.0, along="x"),),
        left=92,
        height=128 + 26 * len(arms),
    )


def _shift_mark(arm: ArmSummary, shift: Estimate, row: float, scale: Scale) -> Mark | None:
    if shift.value is None:
        return None
    low, high = shift.ends
    text = f"{arm_name(arm)} {arm.strength}: {scale.estimate(shift)}"
    return Mark(
        shift.value * scale.factor,
        row,
        typeset(text),
        across=(low * scale.factor, high * scale.factor),
    )


def strength_axis(arms: Iterable[ArmSummary]) -> Axis:
    ticks = sorted({arm.alpha: typeset(arm.strength) for arm in arms}.items())
    return padded_axis(STRENGTH, ticks or [(0.0, "0")])


def strength_mark(
    arm: ArmSummary, estimate: Estimate, x: Axis, side: int, scale: Scale, name: str
) -> Mark | None:
    if estimate.value is None:
        return None
    text = f"{arm_name(arm)} {arm.strength}: {name} {scale.number(estimate.value)}"
    return Mark(
        arm.alpha + side * OFFSET * (x.high - x.low),
        estimate.value,
        typeset(f"{text} {scale.interval(estimate)}"),
        up=estimate.ends,
    )


def described(series: Iterable[Series], more: Iterable[str] = ()) -> str:
    """The chart in words: every mark's own text, then sentences about what is not drawn."""
    texts = [mark.text for each in series for mark in each.marks if mark is not None]
    shown = f"{'; '.join(texts)}." if texts else "Nothing could be drawn."
    return " ".join([shown, *map(typeset, more)])


def across(summary: Summary) -> int:
    """Panels per row: a column per model, and with one model its two readouts side by side."""
    return max(2, min(3, len(summary.models)))


def with_data(name: str, caption: str, table: TidyTable) -> tuple[Table, Download]:
    """The numbers behind a figure as a table to read and a file to keep."""
    columns = tuple(Column(name, numeric=name not in WORDS) for name in table.columns)
    rows = [tuple(map(_short, table.columns, row)) for row in table.rows]
    return Table(caption, columns, rows, headers=2), Download(name, table.to_csv())


WORDS = {"model", "arm", "direction", "readout", "subject", "reason", "against", "steered"}
COUNTS = {"scored", "block", "seeds"}


def _short(column: str, cell: str) -> str:
    """Four digits are enough to read; the file has more."""
    exact = column in {*WORDS, *COUNTS, "strength"} or not cell
    return cell if exact else f"{float(cell):.4f}"

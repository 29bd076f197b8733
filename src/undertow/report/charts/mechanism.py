"""Cosine of students' shifts with a direction against block: a panel per model, a line per arm."""

from collections.abc import Sequence

import altair as alt
from markupsafe import Markup

from undertow.analysis.mechanism import ArmMechanism, BlockShift, SeedRange
from undertow.analysis.summary import Summary
from undertow.findings.numbers import RATIO, arm_strength, arm_title
from undertow.report.charts.figure import Datum, across, with_data
from undertow.report.charts.layers import (
    Place,
    Series,
    ink,
    intervals,
    labels,
    levels,
    line,
    points,
)
from undertow.report.charts.picture import (
    CLOTHED,
    GROUND,
    RANDOM,
    STUDENT,
    TEACHER,
    Words,
    bounds_of,
    draw_picture,
    nice_domain,
    scale_of,
)
from undertow.report.page import Figure, typeset
from undertow.report.tables import mechanism_table

# By an arm's direction and the direction that its shift is compared with.
GROUPS: dict[tuple[str | None, str], Series] = {
    ("trait", "trait"): STUDENT._replace(name="trait arms"),
    (None, "trait"): CLOTHED,
    ("random", "trait"): RANDOM._replace(name="random arms"),
    ("random", "random"): TEACHER._replace(name="random arms, own direction"),
}
BLOCK_TICKS = 6
DOT = 13


def mechanism_figure(summary: Summary, known: Sequence[ArmMechanism]) -> Figure:
    """known: the arms with blocks."""
    models = [model for model in summary.models if any(arm.model == model for arm in known)]
    return Figure(
        "Cosine of the student's shift with the trait direction against block, one line per arm, "
        "the weakest and strongest trait arms labelled; random arms also with their own "
        "direction. Dashed uprights: steered blocks. Dashed levels: 0 and twice the standard "
        "deviation of the cosine with an unrelated direction. Bars at steered blocks: range over "
        "seeds.",
        tuple(
            _panel(model, [arm for arm in known if arm.model == model], f"mechanism-{index}")
            for index, model in enumerate(models)
        ),
        across(summary),
        *with_data(
            "mechanism.csv", "Students' shifts against directions", mechanism_table(summary)
        ),
    )


def _panel(model: str, arms: Sequence[ArmMechanism], id: str) -> Markup:
    count = len(arms[0].blocks)
    chance = 2 * (arms[0].chance or 0.0)
    cosines = [block.cosine for arm in arms for block in arm.blocks if block.cosine is not None]
    ends = [end for cosine in cosines for end in (cosine.low, cosine.high)]
    domain = nice_domain([0.0, chance, -chance, *ends])
    shown = [
        (series, arm)
        for pair, series in GROUPS.items()
        for arm in arms
        if (arm.direction, arm.against) == pair
    ]
    marks = ink(list(dict.fromkeys(series for series, _ in shown)), GROUND)
    ticks = range(0, count, max(1, round(count / BLOCK_TICKS)))
    place = Place(
        alt.X(
            "x:Q",
            title="block",
            scale=alt.Scale(domain=[-0.5, count - 0.5], nice=False, zero=False),
            axis=alt.Axis(values=list(ticks), format="d"),
        ),
        alt.Y("y:Q", title=None, scale=scale_of(domain), axis=alt.Axis(tickCount=5)),
    )
    steered = [block.block for block in arms[0].blocks if block.steered]
    return draw_picture(
        [
            levels((-chance, 0, chance)),
            levels(steered, "x", "steered"),
            line(place, marks, "isValid(datum.arm)", "joined", ("arm",)),
            *intervals(place, marks, "y", bounds_of(domain), "isValid(datum.y_low)"),
            points(place, marks, size=DOT),
            labels(place),
        ],
        [row for series, arm in shown for row in _rows(series, arm, _labelled(arm, arms))],
        Words(f"{model}: cosine of the student's shift", _description(arms)),
        id,
    )


def _labelled(arm: ArmMechanism, arms: Sequence[ArmMechanism]) -> bool:
    """The weakest and strongest trait arms: more labels would print over each other."""
    if arm.direction != "trait":
        return arm.direction is None
    sizes = [abs(float(other.strength or 0)) for other in arms if other.direction == "trait"]
    return abs(float(arm.strength or 0)) in (min(sizes), max(sizes))


def _rows(series: Series, arm: ArmMechanism, labelled: bool) -> list[Datum]:
    rows = []
    for block in arm.blocks:
        row: Datum = {"x": block.block, "y": None, "series": series.name, "arm": _name(arm)}
        if block.cosine is not None:
            row |= _known(arm, block, block.cosine)
            if labelled and block.block == len(arm.blocks) - 1:
                row["label"] = typeset(arm_strength(arm) or arm_title(arm))
        rows.append(row)
    return rows


def _known(arm: ArmMechanism, block: BlockShift, cosine: SeedRange) -> Datum:
    text = f"{_name(arm)}, block {block.block}: cosine {ranged(cosine)}"
    row: Datum = {"y": cosine.mean, "text": typeset(text)}
    ends: Datum = {"y_low": cosine.low, "y_high": cosine.high}
    return row | (ends if block.steered and arm.seeds > 1 else {})


def _name(arm: ArmMechanism) -> str:
    own = " with its own direction" if arm.against == "random" else ""
    return f"{arm_title(arm)}{own}"


def _description(arms: Sequence[ArmMechanism]) -> str:
    """Every arm at its last steered block and where its cosine is largest; not every mark."""
    texts = []
    for arm in arms:
        known = [block for block in arm.blocks if block.cosine is not None]
        if not known:
            texts.append(f"{_name(arm)}: the student did not move")
            continue
        peak = max(known, key=lambda block: abs(block.cosine.mean if block.cosine else 0.0))
        steered = [block for block in known if block.steered]
        at = [*steered[-1:], *([] if peak in steered[-1:] else [peak])]
        texts.append(
            f"{_name(arm)}: "
            + ", ".join(
                f"{ranged(block.cosine)} at block {block.block}" for block in at if block.cosine
            )
        )
    return typeset("; ".join(texts) + ".")


def ranged(found: SeedRange | None) -> str:
    """A mean over seeds, with their range where they differ."""
    if found is None:
        return "undefined"
    mean, low, high = map(RATIO.number, (found.mean, found.low, found.high))
    return mean if low == high else f"{mean} ({low} to {high})"

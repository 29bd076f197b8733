"""The report on mechanism: where in the model the student moved along the direction."""

from collections.abc import Sequence

from undertow.analysis.mechanism import ArmMechanism, BlockShift, SeedRange
from undertow.analysis.summary import Summary
from undertow.findings.numbers import RATIO
from undertow.report.figures import across, with_data
from undertow.report.page import Column, Figure, Items, Paragraph, Part, Section, Table, typeset
from undertow.report.svg import Axis, Chart, Guide, Mark, Series, Style, draw, nice_axis
from undertow.report.tables import mechanism_table

EXPLAINED = (
    "The shift of a student is its mean residual activation at the last token of the evaluation "
    "prompts, minus that of the control student of the same seed, at each block's output. "
    "Cosine compares its course with a direction; the projection says how far it went: at a "
    "steered block 1 is what steering added to the teacher there, elsewhere the unit is the "
    "direction's own norm. A student that follows a teacher of negative strength has a negative "
    "cosine. Ranges are over seeds, not intervals."
)
ABSENT = "No student's activations were kept, so nothing can be said."
GROUPS: tuple[tuple[str, str, str, Style], ...] = (
    ("trait", "trait", "trait arms", "student"),
    ("random", "trait", "random arms", "random"),
    ("random", "random", "random arms, own direction", "teacher"),
)
BLOCK_TICKS = 6


def mechanism_section(summary: Summary) -> Section:
    """Cosine against block per model, the steered blocks in numbers, and all blocks to unfold."""
    known = [arm for arm in summary.mechanism if arm.blocks]
    missing = _missing(summary.mechanism)
    if not known:
        return Section("mechanism", "Mechanism", (Paragraph(ABSENT), *missing))
    models = [model for model in summary.models if any(arm.model == model for arm in known)]
    figure = Figure(
        "Cosine of the student's shift with the trait direction against block, one line per arm, "
        "the weakest and strongest trait arms labelled; random arms also with their own "
        "direction. Dashed uprights: steered blocks. Dashed levels: 0 and twice the standard "
        "deviation of the cosine with an unrelated direction. Bars at steered blocks: range over "
        "seeds.",
        tuple(
            draw(_chart(model, [arm for arm in known if arm.model == model]), f"mechanism-{index}")
            for index, model in enumerate(models)
        ),
        across(summary),
        *with_data(
            "mechanism.csv", "Students' shifts against directions", mechanism_table(summary)
        ),
    )
    parts: tuple[Part, ...] = (
        Paragraph(EXPLAINED),
        _chance(known),
        figure,
        _at_the_steered_block(known),
        *missing,
    )
    return Section("mechanism", "Mechanism", parts)


def _missing(arms: Sequence[ArmMechanism]) -> tuple[Part, ...]:
    texts = [f"{arm.model} {arm.arm}: {arm.reason}." for arm in arms if arm.reason]
    return (Items(tuple(dict.fromkeys(texts))),) if texts else ()


def _chance(arms: Sequence[ArmMechanism]) -> Paragraph:
    by_model = {arm.model: f"{arm.chance:.3f} in {arm.model}" for arm in arms}
    return Paragraph(
        "With an unrelated direction the cosine has a standard deviation of 1 / sqrt(hidden size): "
        f"{', '.join(by_model.values())}. Activations vary more along some axes than others, so "
        "real chance is larger: the random arms are the better measure of it."
    )


def _chart(model: str, arms: Sequence[ArmMechanism]) -> Chart:
    count = len(arms[0].blocks)
    chance = arms[0].chance or 0.0
    cosines = [
        end
        for arm in arms
        for block in arm.blocks
        if block.cosine is not None
        for end in (block.cosine.low, block.cosine.high)
    ]
    series = tuple(
        Series(name, style, marks, joined=True, dots=True)
        for direction, against, name, style in GROUPS
        if (marks := _lines(arms, direction, against))
    )
    steered = [block.block for block in arms[0].blocks if block.steered]
    return Chart(
        f"{model}: cosine of the student's shift",
        _description(arms),
        _block_axis(count),
        nice_axis("cosine", [0.0, 2 * chance, -2 * chance, *cosines]),
        series,
        guides=(
            *(Guide(level) for level in (-2 * chance, 0.0, 2 * chance)),
            *(Guide(block, along="x") for block in steered),
        ),
    )


def _block_axis(count: int) -> Axis:
    step = max(1, round(count / BLOCK_TICKS))
    ticks = tuple((float(block), str(block)) for block in range(0, count, step))
    return Axis("block", -0.5, count - 0.5, ticks)


def _lines(arms: Sequence[ArmMechanism], direction: str, against: str) -> tuple[Mark | None, ...]:
    """The arms' marks one after the other, with a gap in the line between two arms."""
    chosen = [arm for arm in arms if (arm.direction, arm.against) == (direction, against)]
    sizes = [abs(float(arm.strength)) for arm in chosen]
    marks: list[Mark | None] = []
    for arm, size in zip(chosen, sizes, strict=True):
        # More labels than these would print over each other.
        labelled = direction == "trait" and size in (min(sizes), max(sizes))
        marks += [_mark(arm, block, labelled=labelled) for block in arm.blocks]
        marks.append(None)
    return tuple(marks)


def _mark(arm: ArmMechanism, block: BlockShift, *, labelled: bool) -> Mark | None:
    if block.cosine is None:
        return None
    at_end = block.block == len(arm.blocks) - 1
    return Mark(
        block.block,
        block.cosine.mean,
        typeset(f"{_name(arm)}, block {block.block}: cosine {_ranged(block.cosine)}"),
        label=typeset(arm.strength) if labelled and at_end else "",
        up=(block.cosine.low, block.cosine.high) if block.steered and arm.seeds > 1 else None,
    )


def _name(arm: ArmMechanism) -> str:
    own = " with its own direction" if arm.against == "random" else ""
    return f"{arm.direction} {arm.strength}{own}"


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
                f"{_ranged(block.cosine)} at block {block.block}" for block in at if block.cosine
            )
        )
    return typeset("; ".join(texts) + ".")


def _at_the_steered_block(arms: Sequence[ArmMechanism]) -> Table:
    rows = []
    for arm in arms:
        steered = [block for block in arm.blocks if block.steered]
        if steered:
            last = steered[-1]
            rows.append(
                (
                    arm.model,
                    arm.direction,
                    arm.strength,
                    arm.against,
                    str(last.block),
                    _ranged(last.cosine),
                    _ranged(last.projection),
                )
            )
    return Table(
        "Shifts at the last steered block: mean over seeds, and their range",
        (
            Column("Model", numeric=False),
            Column("Arm", numeric=False),
            Column("Strength"),
            Column("Against", numeric=False),
            Column("Block"),
            Column("Cosine"),
            Column("Projection"),
        ),
        rows,
        headers=4,
    )


def _ranged(found: SeedRange | None) -> str:
    if found is None:
        return "undefined"
    mean, low, high = map(RATIO.number, (found.mean, found.low, found.high))
    return mean if low == high else f"{mean} ({low} to {high})"

"""The report on mechanism: where in the model the student moved along the direction."""

from collections.abc import Sequence

from undertow.analysis.mechanism import ArmMechanism
from undertow.analysis.summary import Summary
from undertow.findings.numbers import arm_name, arm_strength
from undertow.report.charts.mechanism import mechanism_figure, ranged
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table

EXPLAINED = (
    "The shift of a student is its mean residual activation at the last token of the evaluation "
    "prompts, minus that of the control student of the same seed, at each block's output. "
    "Cosine compares its course with a direction; the projection says how far it went: at a "
    "steered block 1 is what steering added to the teacher there, elsewhere and in arms whose "
    "teacher is not steered the unit is the direction's own norm. A student that follows a teacher "
    "of negative strength has a negative cosine. Ranges are over seeds, not intervals."
)
ABSENT = "No student's activations were kept, so nothing can be said."


def mechanism_section(summary: Summary) -> Section:
    """Cosine against block per model, the steered blocks in numbers, and all blocks to unfold."""
    known = [arm for arm in summary.mechanism if arm.blocks]
    missing = _missing(summary.mechanism)
    if not known:
        return Section("mechanism", "Mechanism", (Paragraph(ABSENT), *missing))
    parts: tuple[Part, ...] = (
        Paragraph(EXPLAINED),
        _chance(known),
        mechanism_figure(summary, known),
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


def _at_the_steered_block(arms: Sequence[ArmMechanism]) -> Table:
    rows = []
    for arm in arms:
        steered = [block for block in arm.blocks if block.steered]
        if steered:
            last = steered[-1]
            rows.append(
                (
                    arm.model,
                    arm_name(arm),
                    arm_strength(arm),
                    arm.against,
                    str(last.block),
                    ranged(last.cosine),
                    ranged(last.projection),
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

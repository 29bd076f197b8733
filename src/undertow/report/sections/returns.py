"""The report on what comes back of what a defence removed, under other conditions."""

from collections.abc import Iterator, Sequence

from undertow.analysis.summary import DefenceArm, Summary
from undertow.findings.numbers import PERCENT, readout_title
from undertow.findings.returns import condition_of, course_of, return_sentences
from undertow.report.page import Column, Items, Paragraph, Part, Table
from undertow.stats.intervals import Estimate

EXPLAINED = (
    "What a student does not show may still be there. A student that had a message in its training "
    "rows is read again with that message on, and so is its control; and a recipe that differs "
    "from another in its epochs alone is set beside that one. All are shares of what plain "
    "students take over, with plain's own epochs; the words rest on intervals that hold for all "
    "of the model's at once."
)


def return_parts(summary: Summary, model: str, arms: Sequence[DefenceArm]) -> Iterator[Part]:
    """A paragraph, a sentence each and a table; nothing where no recipe was read so."""
    rows = [
        (
            arm.student,
            arm.arm,
            condition_of(each),
            each.than,
            readout_title(summary, each.readout),
            _text(each.removed),
            _text(each.otherwise),
            _text(each.back[0], signed=True),
            course_of(each),
        )
        for arm in arms
        for each in arm.returns
    ]
    if not rows:
        return
    reasons = {
        each.back[0].reason: None for arm in arms for each in arm.returns if each.back[0].reason
    }
    yield Paragraph(EXPLAINED)
    yield Items((*return_sentences(summary, model), *(f"Unknown: {why}." for why in reasons)))
    yield Table(
        f"{model}: what comes back",
        (
            Column("Recipe", numeric=False),
            Column("Arm", numeric=False),
            Column("Condition", numeric=False),
            Column("Beside", numeric=False),
            Column("By", numeric=False),
            Column("Removed, %"),
            Column("Beside it, %"),
            Column("Came back, %"),
            Column("In words", numeric=False),
        ),
        rows,
    )


def _text(estimate: Estimate, *, signed: bool = False) -> str:
    return PERCENT._replace(unit="", absent="unknown").written(estimate, signed=signed)

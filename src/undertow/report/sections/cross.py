"""The report on students of another base model: does transfer need a shared base?"""

from collections.abc import Sequence

from undertow.analysis.summary import CrossArm, Summary
from undertow.findings.cross import (
    CROSS_READOUTS,
    cross_sentences,
    pair_title,
    pairs,
    same_base,
)
from undertow.findings.numbers import (
    RATIO,
    SCALES,
    UNIT_NAMES,
    Scale,
    arm_name,
    readout_title,
)
from undertow.report.page import Column, Heading, Items, Paragraph, Part, Section, Table
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName


def cross_sections(summary: Summary) -> tuple[Section, ...]:
    """The section, or nothing where no cross-model student was trained."""
    if not summary.cross:
        return ()
    parts: list[Part] = [
        Paragraph(
            "A student of another base model, trained on this teacher's text and corrected by its "
            "own control: the same base trained on the unsteered teacher's text. Transfer that "
            "works through a shared base should vanish here; what remains is carried by the text "
            "as such."
        )
    ]
    for student, teacher in pairs(summary):
        title = pair_title(student, teacher)
        said = tuple(cross_sentences(summary, student, teacher))
        parts += [Heading(title), *([Items(said)] if said else [])]
        arms = [
            arm for arm in summary.cross if (arm.model, arm.teacher_model) == (student, teacher)
        ]
        moved = [arm for arm in arms if not arm.is_control]
        for readout in CROSS_READOUTS:
            parts.append(_table(summary, title, moved, readout))
            reasons = _undefined(moved, readout)
            parts += [Items(reasons)] if reasons else []
    parts.append(
        Paragraph(
            "The difference is the same-base student's shift minus the cross-model student's, "
            "taken as independent. Margins of two models are log-odds over different baselines: "
            "by margin, tau is in nats of the student per nat of the teacher, and the rate is the "
            "readout to compare by."
        )
    )
    return (Section("cross", "Cross-model students", tuple(parts)),)


def _table(summary: Summary, title: str, arms: Sequence[CrossArm], readout: ReadoutName) -> Table:
    """The arms of one pair."""
    scale = SCALES[readout]
    rows = []
    for arm in arms:
        transfer = arm.by(readout)
        own = same_base(summary, arm).by(readout).student_shift
        rows.append(
            (
                arm_name(arm),
                arm.strength,
                *_cells(transfer.student_shift, scale, signed=True),
                *_cells(own, scale, signed=True),
                *_cells(arm.gap(readout), scale, signed=True),
                *_cells(transfer.tau, RATIO, signed=False),
            )
        )
    shifts = ("Student shift", "Same-base student's shift", "Difference")
    names = (*(f"{name}, {scale.unit}" for name in shifts), "tau")
    return Table(
        f"{title} by {readout_title(summary, readout)} ({UNIT_NAMES[readout]})",
        (
            Column("Arm", numeric=False),
            Column("Strength"),
            *(Column(head) for name in names for head in (name, "interval")),
        ),
        rows,
        headers=2,
    )


def _cells(estimate: Estimate, scale: Scale, *, signed: bool) -> tuple[str, str]:
    if estimate.value is None:
        return scale.absent, ""
    return scale.ends(estimate, signed=signed).value, scale.interval(estimate, signed=signed)


def _undefined(arms: Sequence[CrossArm], readout: ReadoutName) -> tuple[str, ...]:
    """Why a tau of the table is undefined."""
    taus = [(arm, arm.by(readout).tau) for arm in arms]
    return tuple(
        f"{arm_name(arm)} {arm.strength}: tau is undefined; {tau.reason}"
        for arm, tau in taus
        if tau.value is None
    )

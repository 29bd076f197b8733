"""The report on students of other recipes, each beside the plain student of the same teacher."""

from collections.abc import Sequence

from undertow.analysis.summary import StudentArm, Summary
from undertow.findings.numbers import (
    RATIO,
    SCALES,
    UNIT_NAMES,
    Scale,
    arm_name,
    arm_strength,
    arm_title,
    readout_title,
)
from undertow.findings.students import STUDENT_READOUTS, beside, kinds, student_sentences
from undertow.report.page import Column, Heading, Items, Paragraph, Part, Section, Table
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName


def student_sections(summary: Summary) -> tuple[Section, ...]:
    """The section, or nothing where only plain students were trained."""
    if not summary.students:
        return ()
    parts: list[Part] = [
        Paragraph(
            "The same teachers' text, and students that are made in another way, each corrected by "
            "its own control: the same recipe on the unsteered teacher's text."
        )
    ]
    if any(arm.other_base for arm in summary.students):
        parts.append(
            Paragraph(
                "Transfer that works through a shared base should vanish in a student of another "
                "base; what remains is carried by the text as such. Margins of two models are "
                "log-odds over different baselines: there tau by margin is in nats of the student "
                "per nat of the teacher, and the rate is the readout to compare by."
            )
        )
    for kind in kinds(summary):
        said = tuple(student_sentences(summary, kind))
        parts += [Heading(kind.title), *([Items(said)] if said else [])]
        moved = [arm for arm in kind.arms if not arm.is_control]
        for readout in STUDENT_READOUTS:
            parts.append(_table(summary, kind.title, moved, readout))
            reasons = _undefined(moved, readout)
            parts += [Items(reasons)] if reasons else []
    parts.append(
        Paragraph(
            "The difference is the plain student's shift minus this student's, taken as "
            "independent."
        )
    )
    return (Section("students", "Students of other recipes", tuple(parts)),)


def _table(summary: Summary, title: str, arms: Sequence[StudentArm], readout: ReadoutName) -> Table:
    """The arms of one recipe and model."""
    scale = SCALES[readout]
    rows = []
    for arm in arms:
        transfer = arm.by(readout)
        plain = beside(summary, arm).by(readout).student_shift
        rows.append(
            (
                arm_name(arm),
                arm_strength(arm),
                *_cells(transfer.student_shift, scale, signed=True),
                *_cells(plain, scale, signed=True),
                *_cells(arm.gap(readout), scale, signed=True),
                *_cells(transfer.tau, RATIO, signed=False),
            )
        )
    shifts = ("Student shift", "Plain student's shift", "Difference")
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


def _undefined(arms: Sequence[StudentArm], readout: ReadoutName) -> tuple[str, ...]:
    """Why a tau of the table is undefined."""
    taus = [(arm, arm.by(readout).tau) for arm in arms]
    return tuple(
        f"{arm_title(arm)}: tau is undefined; {tau.reason}"
        for arm, tau in taus
        if tau.value is None
    )

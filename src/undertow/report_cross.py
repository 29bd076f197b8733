"""The report on students of another base model: does transfer need a shared base?"""

from undertow.cross_findings import (
    CROSS_READOUTS,
    gap_of,
    pair_title,
    pairs,
    same_base,
    sentences,
)
from undertow.findings import (
    RATIO,
    SCALES,
    UNIT_NAMES,
    Scale,
    arm_name,
    readout_title,
    transfer_of,
)
from undertow.page import Column, Heading, Items, Paragraph, Part, Section, Table
from undertow.summary import EstimateRecord, ReadoutName, Summary


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
        said = tuple(sentences(summary, student, teacher))
        parts += [Heading(pair_title(student, teacher)), *([Items(said)] if said else [])]
    for readout in CROSS_READOUTS:
        parts.append(_table(summary, readout))
    parts += [Items(reasons) for reasons in [_undefined(summary)] if reasons]
    parts.append(
        Paragraph(
            "The difference is the same-base student's shift minus the cross-model student's, "
            "taken as independent. Margins of two models are log-odds over different baselines: "
            "by margin, tau is in nats of the student per nat of the teacher, and the rate is the "
            "readout to compare by."
        )
    )
    return (Section("cross", "Cross-model students", tuple(parts)),)


def _table(summary: Summary, readout: ReadoutName) -> Table:
    scale = SCALES[readout]
    rows = []
    for arm in summary.cross:
        if arm.is_control:
            continue
        transfer = transfer_of(arm, readout)
        own = transfer_of(same_base(summary, arm), readout).student_shift
        rows.append(
            (
                arm.model,
                arm.teacher_model,
                arm_name(arm),
                arm.strength,
                *_cells(transfer.student_shift, scale, signed=True),
                *_cells(own, scale, signed=True),
                *_cells(gap_of(arm, readout), scale, signed=True),
                *_cells(transfer.tau, RATIO, signed=False),
            )
        )
    names = [f"{name}, {scale.unit}" for name in ("Shift", "Same-base shift", "Difference")]
    return Table(
        f"Cross-model students by {readout_title(summary, readout)} ({UNIT_NAMES[readout]})",
        (
            *(Column(title, numeric=False) for title in ("Student", "Text of", "Arm")),
            Column("Strength"),
            *(Column(title) for name in (*names, "tau") for title in (name, "interval")),
        ),
        rows,
        headers=4,
    )


def _cells(estimate: EstimateRecord, scale: Scale, *, signed: bool) -> tuple[str, str]:
    if estimate.value is None:
        return "undefined", ""
    return scale.number(estimate.value, signed=signed), scale.interval(estimate, signed=signed)


def _undefined(summary: Summary) -> tuple[str, ...]:
    """Why a tau of the tables is undefined."""
    return tuple(
        f"{pair_title(arm.model, arm.teacher_model)}, {arm.arm} by "
        f"{readout_title(summary, readout)}: tau is undefined; {tau.reason}"
        for readout in CROSS_READOUTS
        for arm in summary.cross
        for tau in [transfer_of(arm, readout).tau]
        if tau.value is None and not arm.is_control
    )

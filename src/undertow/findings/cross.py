"""What the intervals allow to be said of cross-model students, in words; writes ASCII."""

from collections.abc import Iterator

from undertow.analysis.summary import ArmSummary, CrossArm, Summary
from undertow.findings.arms import findings, sentence
from undertow.findings.numbers import readout_title, shift_text
from undertow.study.records import ReadoutName

# The rate first: margins of two models are log-odds over two different baselines.
CROSS_READOUTS: tuple[ReadoutName, ...] = ("rate", "margin")


def pair_title(student: str, teacher: str) -> str:
    return f"{student} on the text of {teacher}"


def pairs(summary: Summary) -> list[tuple[str, str]]:
    """(student, teacher) of every pair, in the order of params.yaml."""
    return list(dict.fromkeys((arm.model, arm.teacher_model) for arm in summary.cross))


def same_base(summary: Summary, arm: CrossArm) -> ArmSummary:
    """The arm whose student shares the teacher's base: the one that the gap is measured from."""
    return next(a for a in summary.arms if (a.model, a.arm) == (arm.teacher_model, arm.arm))


def cross_sentences(summary: Summary, student: str, teacher: str) -> Iterator[str]:
    """The pair's largest trait strength: clear of 0, and less than the same-base student?"""
    arms = tuple(a for a in summary.cross if (a.model, a.teacher_model) == (student, teacher))
    contrasts = tuple(found for arm in arms for found in arm.contrasts)
    view = summary.model_copy(update={"arms": arms, "contrasts": contrasts})
    found = {finding.readout: finding for finding in findings(view, student)}
    for readout in CROSS_READOUTS:
        if readout not in found:
            continue
        finding = found[readout]
        arm = next(arm for arm in arms if arm.arm == finding.arm.arm)
        said = sentence(finding, readout_title(summary, readout))
        yield f"{said} {compared(summary, arm, readout)}"


def compared(summary: Summary, arm: CrossArm, readout: ReadoutName) -> str:
    """The cross-model student beside the same-base one, from the interval of their difference."""
    own = same_base(summary, arm).by(readout).student_shift
    gap = arm.gap(readout)
    if readout == "margin":
        return (
            f"Its nats are not those of {arm.teacher_model}; compare the two students by "
            f"{summary.rate_name}."
        )
    if own.value is None or gap.value is None:
        return f"There is no comparison with {arm.teacher_model}'s own student: {gap.reason}."
    beside = (
        f"{arm.teacher_model}'s own student on the same text: {shift_text(own, readout)}; "
        f"difference {shift_text(gap, readout)}"
    )
    if not gap.excludes_zero:
        return f"{beside}, which covers 0: the two students cannot be told apart."
    if not own.excludes_zero:
        return f"{beside}, which excludes 0; but the own student's shift covers 0 itself."
    course = "less far" if gap.value * own.value > 0 else "further"
    return f"{beside}, which excludes 0: the cross-model student went {course} that way."

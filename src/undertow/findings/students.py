"""What the intervals allow to be said of students of other recipes, in words; writes ASCII."""

from collections.abc import Iterator
from typing import NamedTuple

from undertow.analysis.summary import ArmSummary, StudentArm, Summary
from undertow.findings.arms import clothed_findings, findings, sentence
from undertow.findings.numbers import readout_title, shift_text
from undertow.study.records import ReadoutName

# The rate first: margins of two bases are log-odds over two different baselines.
STUDENT_READOUTS: tuple[ReadoutName, ...] = ("rate", "margin")


class Kind(NamedTuple):
    """The students of one recipe on the text of one model's teachers."""

    student: str
    model: str
    arms: tuple[StudentArm, ...]

    @property
    def title(self) -> str:
        base = self.arms[0].other_base
        return f"{self.student}: " + (f"{base} on the text of {self.model}" if base else self.model)


def kinds(summary: Summary) -> list[Kind]:
    """Every recipe but plain, by model, in the order of params.yaml."""
    names = dict.fromkeys((arm.student, arm.model) for arm in summary.students)
    return [
        Kind(*name, tuple(a for a in summary.students if (a.student, a.model) == name))
        for name in names
    ]


def beside(summary: Summary, arm: StudentArm) -> ArmSummary:
    """The plain students of the same teacher: what the gap is measured from."""
    return next(a for a in summary.arms if (a.model, a.arm) == (arm.model, arm.arm))


def student_sentences(summary: Summary, kind: Kind) -> Iterator[str]:
    """The largest trait strength, and arms without one: clear of 0, and less than the plain?"""
    contrasts = tuple(found for arm in kind.arms for found in arm.contrasts)
    view = summary.model_copy(update={"arms": kind.arms, "contrasts": contrasts})
    found = [*findings(view, kind.model), *clothed_findings(view, kind.model)]
    for finding in sorted(found, key=lambda each: STUDENT_READOUTS.index(each.readout)):
        readout = finding.readout
        arm = next(arm for arm in kind.arms if arm.arm == finding.arm.arm)
        said = sentence(finding, readout_title(summary, readout))
        yield f"{said} {compared(summary, arm, readout)}"


def compared(summary: Summary, arm: StudentArm, readout: ReadoutName) -> str:
    """This student beside the plain one, from the interval of their difference."""
    plain, gap = beside(summary, arm).by(readout).student_shift, arm.gap(readout)
    if readout == "margin" and arm.other_base:
        return (
            f"Its nats are not those of {arm.model}; compare the two students by "
            f"{summary.rate_name}."
        )
    if plain.value is None or gap.value is None:
        return f"There is no comparison with the plain student: {gap.reason}."
    said = (
        f"The plain student on the same text: {shift_text(plain, readout)}; "
        f"difference {shift_text(gap, readout)}"
    )
    if not gap.excludes_zero:
        return f"{said}, which covers 0: the two students cannot be told apart."
    if not plain.excludes_zero:
        return f"{said}, which excludes 0; but the plain student's shift covers 0 itself."
    course = "less far" if gap.value * plain.value > 0 else "further"
    return f"{said}, which excludes 0: this student went {course} that way."

"""What the intervals allow to be said, and how numbers are written in every view.

Words come from intervals alone: where an interval covers 0 the text says so, whatever the
value. Writes ASCII; knows nothing about terminals or HTML.
"""

import math
from dataclasses import dataclass

from undertow.analysis.contrasts import ContrastRecord, Standing
from undertow.analysis.contrasts import random_twin as random_twin
from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.numbers import RATIO, READOUTS, arm_title, shift_text
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Transfer
from undertow.study.records import ReadoutName


@dataclass(frozen=True)
class Finding:
    """What one readout says of an arm: of the largest trait strength, or of one without any."""

    readout: ReadoutName
    arm: ArmSummary
    random: ArmSummary | None  # of the same strength
    contrast: ContrastRecord | None = None  # to that random arm, on the same prompts and seeds
    random_strengths: tuple[str, ...] = ()  # all that were run

    @property
    def transfer(self) -> Transfer:
        return self.arm.by(self.readout)

    @property
    def shift(self) -> Estimate:
        return self.transfer.student_shift

    @property
    def random_shift(self) -> Estimate | None:
        if self.random is None:
            return None
        shift = self.random.by(self.readout).student_shift
        return None if shift.value is None else shift

    @property
    def is_known(self) -> bool:
        return self.shift.value is not None

    @property
    def is_clear_of_control(self) -> bool:
        """By the interval that holds for all arms of the model at once, where there is one."""
        bounds = self.arm.bounds.get(self.readout)
        at_once = self.shift if bounds is None else bounds.simultaneous.student_shift
        return self.is_known and self.shift.excludes_zero and at_once.excludes_zero

    @property
    def course(self) -> str:
        return "upwards" if (self.shift.value or 0) > 0 else "downwards"

    @property
    def standing(self) -> Standing:
        """What the difference to the random direction's student says."""
        return "unknown" if self.contrast is None else self.contrast.verdict


def findings(summary: Summary, model: str) -> list[Finding]:
    """By margin and by rate, at the model's largest trait strength; empty without a trait arm."""
    view = summary.views.get(model)
    # An incoherent teacher's student says little about the trait.
    trait = view and ([arm for arm in view.trait if arm.degenerate is None] or view.trait)
    if view is None or not trait:
        return []

    def push(arm: ArmSummary) -> tuple[float, float]:
        """Of two opposite signs, the one that steers towards the trait."""
        shift = arm.margin.teacher_shift.value
        return abs(arm.alpha), -math.inf if shift is None else shift

    largest = max(trait, key=push)
    random = random_twin(view.arms, largest)
    strengths = tuple(arm.strength or "" for arm in view.arms if arm.direction == "random")
    contrasts = view.contrasts
    return [
        Finding(
            readout, largest, random, contrasts.get((largest.arm, readout, "random")), strengths
        )
        for readout in READOUTS
    ]


def clothed_findings(summary: Summary, model: str) -> list[Finding]:
    """By margin and by rate, every arm whose teacher is not steered."""
    view = summary.views.get(model)
    arms = view.clothed if view else ()
    return [Finding(readout, arm, None) for arm in arms for readout in READOUTS]


CLAUSES: dict[Standing, str] = {
    "clear": "clear of both the control student and the random direction",
    "unclear": "clear of the control student but not distinguishable from the random direction",
    "less": "clear of the control student but less far than the random direction moved it",
    "apart": "clear of the control student and apart from the random direction",
    "unknown": "clear of the control student; no random direction of this strength was read",
}

STANDINGS: dict[Standing, str] = {
    "clear": "the trait arm stands clear of it",
    "unclear": "which covers 0: the trait arm does not stand clear of it",
    "less": "the trait arm went less far than the random control",
    "apart": "which excludes 0; but the trait arm's own shift covers 0",
    "unknown": "there is nothing to compare with",
}


def clause(finding: Finding, title: str) -> str:
    """One readout's verdict as half a sentence, without numbers."""
    if not finding.is_known:
        return f"by {title} nothing can be said ({finding.shift.reason})"
    if not finding.is_clear_of_control:
        if not finding.shift.excludes_zero and not finding.transfer.teacher_shift.excludes_zero:
            return f"by {title} the teacher did not measurably move, nor did its student"
        return f"by {title} the student's shift is not distinguishable from noise"
    if finding.arm.direction is None:
        return f"by {title} the student moved {finding.course}, clear of the control student"
    contrast, words = finding.contrast, CLAUSES[finding.standing]
    if contrast is not None and contrast.draws is not None:
        draws = f"the students of {contrast.draws} random directions"
        words = words.replace("the random direction", draws).replace(" moved it", " moved")
    return f"by {title} the student moved {finding.course}, {words}"


def sentence(finding: Finding, title: str) -> str:
    """The largest strength in words: does its interval exclude 0, and what did random do?"""
    name = f"{arm_title(finding.arm)} by {title}"
    if not finding.is_known:
        return f"{name}: no student shift, because {finding.shift.reason}."
    if finding.is_clear_of_control:
        verdict = f"the interval excludes 0, {finding.course}"
    elif finding.shift.excludes_zero:
        verdict = "the interval excludes 0, but not that of all arms at once"
    else:
        verdict = "the interval covers 0: not distinguishable from noise"
    shift, tau = shift_text(finding.shift, finding.readout), RATIO.written(finding.transfer.tau)
    text = f"{name}: student shift {shift}; {verdict}; tau {tau}."
    for reason in (finding.arm.degenerate, finding.arm.diverged):
        text += f" Mind that {reason}." if reason else ""
    if finding.arm.direction is None:
        return f"{text} It is not steered, so no random direction is its control."
    if finding.random is None:
        others = ", ".join(finding.random_strengths)
        run = f"was run at {others} only" if others else "was not run"
        return f"{text} The random control {run}, so there is nothing to compare with."
    if finding.random_shift is None:
        return f"{text} The random control has no reading."
    zero = "covers" if not finding.random_shift.excludes_zero else "excludes"
    return (
        f"{text} Random control {finding.random.strength}: "
        f"{shift_text(finding.random_shift, finding.readout)}, which {zero} 0; {_against(finding)}."
        + (f" Mind that {finding.random.degenerate}." if finding.random.degenerate else "")
    )


def _against(finding: Finding) -> str:
    """The paired difference to the random direction and what it says."""
    contrast = finding.contrast
    if contrast is None or contrast.estimate.value is None:
        return STANDINGS["unknown"]
    difference = shift_text(contrast.estimate, finding.readout)
    if contrast.draws is None:
        return f"the difference is {difference}, {STANDINGS[finding.standing]}"
    return (
        f"the difference to one more of {contrast.draws} random draws is {difference}, "
        f"{STANDINGS[finding.standing]}{_teacher(contrast)}"
    )


def _teacher(contrast: ContrastRecord) -> str:
    """Whether what is said of students is already so of their teachers."""
    if contrast.teacher is None or contrast.teacher.value is None:
        return ""
    shift = shift_text(contrast.teacher, contrast.readout)
    further = "did" if contrast.teacher.excludes_zero else "did not"
    return (
        f"; that is how far students moved: their teacher {further} stand apart from the draws' "
        f"teachers ({shift}), and the slopes say how much of it came across"
    )

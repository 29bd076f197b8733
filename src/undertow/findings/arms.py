"""What the intervals allow to be said, and how numbers are written in every view.

Words come from intervals alone: where an interval covers 0 the text says so, whatever the
value. Writes ASCII; knows nothing about terminals or HTML.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from undertow.analysis.contrasts import ContrastRecord, Standing
from undertow.analysis.contrasts import random_twin as random_twin
from undertow.analysis.estimates import excludes_zero
from undertow.analysis.summary import (
    ArmSummary,
    EstimateRecord,
    ReadoutName,
    Summary,
    TransferRecord,
)


class Scale(NamedTuple):
    """How a readout is written: its unit, the factor from stored to shown, and the digits."""

    unit: str
    factor: float
    digits: int

    def number(self, value: float | None, *, signed: bool = False) -> str:
        if value is None:
            return "-"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        # Adding 0.0 after rounding turns -0.0 into 0.0: "-0.00" would claim a direction.
        shown = round(value * self.factor, self.digits) + 0.0
        return f"{shown:{'+' if signed and shown else ''}.{self.digits}f}"

    def interval(self, estimate: EstimateRecord, *, signed: bool = False) -> str:
        low, high = ends(estimate)
        return f"[{self.number(low, signed=signed)}, {self.number(high, signed=signed)}]"

    def estimate(self, estimate: EstimateRecord) -> str:
        """A shift in a sentence: '+1.13 nats [+0.80, +1.50]'."""
        value = self.number(estimate.value, signed=True)
        return f"{value} {self.unit} {self.interval(estimate, signed=True)}"


READOUTS: tuple[ReadoutName, ...] = ("margin", "rate")
SCALES: dict[ReadoutName, Scale] = {
    "margin": Scale("nats", 1, 2),
    "rate": Scale("pp", 100, 1),
}
UNIT_NAMES: dict[ReadoutName, str] = {"margin": "nats", "rate": "percentage points, pp"}
PERCENT = Scale("%", 100, 1)
RATIO = Scale("", 1, 2)


def ends(estimate: EstimateRecord) -> tuple[float, float]:
    """The interval's ends; a missing end of a known value is unbounded."""
    return (
        -math.inf if estimate.low is None else estimate.low,
        math.inf if estimate.high is None else estimate.high,
    )


class Written(NamedTuple):
    """An estimate as text: '+1.13' and '[+0.80, +1.50]'."""

    value: str
    interval: str


def aligned(
    estimates: Sequence[EstimateRecord], scale: Scale, *, signed: bool
) -> list[Written | None]:
    """Estimates padded with spaces to stand under each other; None where one is unknown."""
    known = [estimate for estimate in estimates if estimate.value is not None]
    texts = [[scale.number(end, signed=signed) for end in (e.value, *ends(e))] for e in known]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    written = []
    for text in texts:
        value, low, high = map(str.rjust, text, widths)
        # Padding goes before the bracket: '[ 0.46' looks like a slip.
        written.append(Written(value, f"[{low.strip()}, {high}]".rjust(sum(widths[1:]) + 4)))
    rest = iter(written)
    return [None if estimate.value is None else next(rest) for estimate in estimates]


def covers_zero(estimate: EstimateRecord) -> bool:
    return not excludes_zero(estimate)


def arm_name(arm: ArmSummary) -> str:
    if arm.is_control:
        return "control"
    return "trait" if arm.direction == "trait" else "random control"


def titled(name: str) -> str:
    """A name at the start of a sentence; ASR stays ASR."""
    return name[:1].upper() + name[1:]


def readout_title(summary: Summary, readout: ReadoutName) -> str:
    return "margin" if readout == "margin" else summary.rate_name


def transfer_of(arm: ArmSummary, readout: ReadoutName) -> TransferRecord:
    return arm.margin if readout == "margin" else arm.rate


@dataclass(frozen=True)
class Finding:
    """What one readout says about a model's largest trait strength."""

    readout: ReadoutName
    arm: ArmSummary
    random: ArmSummary | None  # of the same strength
    contrast: ContrastRecord | None = None  # to that random arm, on the same prompts and seeds
    random_strengths: tuple[str, ...] = ()  # all that were run

    @property
    def scale(self) -> Scale:
        return SCALES[self.readout]

    @property
    def transfer(self) -> TransferRecord:
        return transfer_of(self.arm, self.readout)

    @property
    def shift(self) -> EstimateRecord:
        return self.transfer.student_shift

    @property
    def random_shift(self) -> EstimateRecord | None:
        if self.random is None:
            return None
        shift = transfer_of(self.random, self.readout).student_shift
        return None if shift.value is None else shift

    @property
    def is_known(self) -> bool:
        return self.shift.value is not None

    @property
    def is_clear_of_control(self) -> bool:
        return self.is_known and not covers_zero(self.shift)

    @property
    def course(self) -> str:
        return "upwards" if (self.shift.value or 0) > 0 else "downwards"

    @property
    def standing(self) -> Standing:
        """What the difference to the random direction's student says."""
        return "unknown" if self.contrast is None else self.contrast.verdict


def findings(summary: Summary, model: str) -> list[Finding]:
    """By margin and by rate, at the model's largest trait strength; empty without a trait arm."""
    arms = summary.of_model(model)
    trait = [arm for arm in arms if arm.direction == "trait" and not arm.is_control]
    # An incoherent teacher's student says little about the trait.
    trait = [arm for arm in trait if arm.degenerate is None] or trait
    if not trait:
        return []

    def push(arm: ArmSummary) -> tuple[float, float]:
        """Of two opposite signs, the one that steers towards the trait."""
        shift = arm.margin.teacher_shift.value
        return abs(arm.alpha), -math.inf if shift is None else shift

    largest = max(trait, key=push)
    random = random_twin(arms, largest)
    strengths = tuple(arm.strength for arm in arms if arm.direction == "random")
    return [
        Finding(readout, largest, random, summary.contrast(largest, readout, "random"), strengths)
        for readout in READOUTS
    ]


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
        return f"by {title} the student's shift is not distinguishable from noise"
    return f"by {title} the student moved {finding.course}, {CLAUSES[finding.standing]}"


def sentence(finding: Finding, title: str) -> str:
    """The largest strength in words: does its interval exclude 0, and what did random do?"""
    name = f"{arm_name(finding.arm)} {finding.arm.strength} by {title}"
    if not finding.is_known:
        return f"{name}: no student shift, because {finding.shift.reason}."
    if finding.is_clear_of_control:
        verdict = f"the interval excludes 0, {finding.course}"
    else:
        verdict = "the interval covers 0: not distinguishable from noise"
    tau = finding.transfer.tau
    ratio = "undefined" if tau.value is None else f"{RATIO.number(tau.value)} {RATIO.interval(tau)}"
    shift = finding.scale.estimate(finding.shift)
    text = f"{name}: student shift {shift}; {verdict}; tau {ratio}."
    if finding.arm.degenerate:
        text += f" Mind that {finding.arm.degenerate}."
    if finding.random is None:
        others = ", ".join(finding.random_strengths)
        run = f"was run at {others} only" if others else "was not run"
        return f"{text} The random control {run}, so there is nothing to compare with."
    if finding.random_shift is None:
        return f"{text} The random control has no reading."
    zero = "covers" if covers_zero(finding.random_shift) else "excludes"
    return (
        f"{text} Random control {finding.random.strength}: "
        f"{finding.scale.estimate(finding.random_shift)}, which {zero} 0; {_against(finding)}."
        + (f" Mind that {finding.random.degenerate}." if finding.random.degenerate else "")
    )


def _against(finding: Finding) -> str:
    """The paired difference to the random direction and what it says."""
    contrast = finding.contrast
    if contrast is None or contrast.estimate.value is None:
        return STANDINGS["unknown"]
    difference = finding.scale.estimate(contrast.estimate)
    return f"the difference is {difference}, {STANDINGS[finding.standing]}"

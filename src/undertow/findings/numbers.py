"""Values and intervals as text: the only place where a number is written."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from undertow.analysis.summary import ArmSummary, Summary, TransferRecord
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName


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

    def interval(self, estimate: Estimate, *, signed: bool = False) -> str:
        low, high = estimate.ends
        return f"[{self.number(low, signed=signed)}, {self.number(high, signed=signed)}]"

    def estimate(self, estimate: Estimate) -> str:
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


class Written(NamedTuple):
    """An estimate as text: '+1.13' and '[+0.80, +1.50]'."""

    value: str
    interval: str


def aligned(estimates: Sequence[Estimate], scale: Scale, *, signed: bool) -> list[Written | None]:
    """Estimates padded with spaces to stand under each other; None where one is unknown."""
    known = [estimate for estimate in estimates if estimate.value is not None]
    texts = [[scale.number(end, signed=signed) for end in (e.value, *e.ends)] for e in known]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    written = []
    for text in texts:
        value, low, high = map(str.rjust, text, widths)
        # Padding goes before the bracket: '[ 0.46' looks like a slip.
        written.append(Written(value, f"[{low.strip()}, {high}]".rjust(sum(widths[1:]) + 4)))
    rest = iter(written)
    return [None if estimate.value is None else next(rest) for estimate in estimates]


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

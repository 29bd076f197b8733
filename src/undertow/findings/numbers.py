"""How each readout of a summary is called and written, in every view."""

from undertow.analysis.summary import ArmSummary, Summary
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName
from undertow.texts.numbers import PERCENT as PERCENT
from undertow.texts.numbers import POINTS
from undertow.texts.numbers import RATIO as RATIO
from undertow.texts.numbers import Scale as Scale
from undertow.texts.numbers import Written as Written
from undertow.texts.numbers import aligned as aligned

READOUTS: tuple[ReadoutName, ...] = ("margin", "rate")
SCALES: dict[ReadoutName, Scale] = {"margin": Scale("nats", 1, 2), "rate": POINTS}
LEVELS: dict[ReadoutName, Scale] = {"margin": SCALES["margin"], "rate": PERCENT}
UNIT_NAMES: dict[ReadoutName, str] = {"margin": "nats", "rate": "percentage points, pp"}


def shift_text(shift: Estimate, readout: ReadoutName) -> str:
    """A shift or a difference of shifts in a sentence: '+1.13 nats [+0.80, +1.50]'."""
    return SCALES[readout].written(shift, signed=True)


def arm_name(arm: ArmSummary) -> str:
    if arm.is_control:
        return "control"
    return "trait" if arm.direction == "trait" else "random control"


def titled(name: str) -> str:
    """A name at the start of a sentence; ASR stays ASR."""
    return name[:1].upper() + name[1:]


def readout_title(summary: Summary, readout: ReadoutName) -> str:
    return "margin" if readout == "margin" else summary.rate_name

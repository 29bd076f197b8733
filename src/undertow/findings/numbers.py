"""How each readout of a summary is called and written, in every view."""

from typing import Protocol

from undertow.analysis.summary import ModelView, Summary
from undertow.config import Direction, parse_arm
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


class Told(Protocol):
    """An arm in any of the records."""

    @property
    def arm(self) -> str: ...

    @property
    def direction(self) -> Direction | None: ...

    @property
    def strength(self) -> str | None: ...


def arm_name(arm: Told) -> str:
    """What the arm's teacher is: 'trait', 'random control', 'prompted'."""
    if parse_arm(arm.arm).is_control:
        return "control"
    if arm.direction is None:
        return arm.arm.replace("_", " ", 1)
    return "trait" if arm.direction == "trait" else "random control"


def arm_strength(arm: Told) -> str:
    """As params.yaml has it; nothing where the teacher is not steered."""
    return arm.strength or ""


def arm_title(arm: Told) -> str:
    """Both: 'trait 0.5', 'prompted'."""
    return f"{arm_name(arm)} {arm_strength(arm)}".rstrip()


def titled(name: str) -> str:
    """A name at the start of a sentence; ASR stays ASR."""
    return name[:1].upper() + name[1:]


def seeds_text(view: ModelView) -> str:
    """How many seeds a model's arms have: '5 seeds, control 12, random 8'."""
    most = {
        name: max((arm.margin.seeds for arm in arms), default=0)
        for name, arms in (
            ("", view.teaching),
            ("control", (view.control,) if view.control else ()),
            ("random", tuple(arm for arm in view.arms if arm.direction == "random")),
        )
    }
    usual = most.pop("") or max(most.values())
    others = [f"{name} {seeds}" for name, seeds in most.items() if seeds not in (0, usual)]
    return ", ".join([f"{usual} seed{'' if usual == 1 else 's'}", *others])


def readout_title(summary: Summary, readout: ReadoutName) -> str:
    return "margin" if readout == "margin" else summary.rate_name

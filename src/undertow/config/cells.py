"""Arms and cells: what is run, and how it is spelled in params.yaml, DVC and paths."""

import re
from typing import Literal, NamedTuple

STRENGTH = r"-?(?:0|[1-9]\d*)(?:\.\d+)?"
PLAIN = "plain"  # the student that all others are set beside
PROMPTED = "prompted"  # the arm whose teacher answers under the trait's system message
ARM = re.compile(rf"(trait|random)_({STRENGTH})")

ADAPTER = re.compile(r"adapter_([a-z0-9][a-z0-9_]*)")

Direction = Literal["trait", "random"]


class Arm(NamedTuple):
    """Which teacher: a direction and a strength; neither for one in other clothes."""

    direction: Direction | None
    strength: str | None
    adapter: str | None = None  # the NAME of adapter_NAME; without one it is prompted

    @property
    def alpha(self) -> float:
        """The strength as a number; ValueError where the teacher is not steered."""
        if self.strength is None:
            raise ValueError(f"the arm {self.name} has no strength")
        return float(self.strength)

    @property
    def name(self) -> str:
        """How params.yaml, DVC and the paths spell it."""
        if self.direction is not None:
            return f"{self.direction}_{self.strength}"
        return PROMPTED if self.adapter is None else f"adapter_{self.adapter}"

    @property
    def is_control(self) -> bool:
        return self.strength is not None and self.alpha == 0

    @property
    def teaches_trait(self) -> bool:
        """Whether its teacher is meant to show the trait: no control, and no random direction."""
        return self.direction != "random" and not self.is_control


class Cell(NamedTuple):
    """One (model, arm, seed) and one kind of student."""

    model: str  # the teacher's base
    arm: Arm
    seed: int
    student: str = PLAIN  # a name under recipes

    @property
    def key(self) -> str:
        own = f"{self.model}/{self.arm.name}/seed{self.seed}"
        return own if self.student == PLAIN else f"{own}/{self.student}"

    @property
    def plain(self) -> "Cell":
        """The same teacher with the plain student."""
        return self._replace(student=PLAIN)

    def command(self, stage: str) -> str:
        """What runs one of its stages by hand; all students of a teacher share its steer."""
        which = f"--model {self.model} --arm {self.arm.name} --seed {self.seed}"
        if self.student == PLAIN or stage == "steer":
            return f"python cli.py {stage} {which}"
        return f"python cli.py {stage} {which} --student {self.student}"


def is_clothed(name: str) -> bool:
    """Whether an arm's teacher is not steered, by its name."""
    return name == PROMPTED or ADAPTER.fullmatch(name) is not None


def parse_arm(text: str) -> Arm:
    """Read 'trait_-0.15', 'prompted' or 'adapter_owl'; ValueError says what to write instead."""
    if text == PROMPTED:
        return Arm(None, None)
    if adapter := ADAPTER.fullmatch(text):
        return Arm(None, None, adapter[1])
    match = ARM.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r} is not an arm; write <direction>_<strength> with direction trait or random "
            "and a plain decimal strength, for example trait_-0.15 or random_1; or prompted, or "
            "adapter_NAME"
        )
    if float(match[2]) == 0 and text != "trait_0":
        raise ValueError(f"{text} is the control under another name; write trait_0")
    return Arm("random" if match[1] == "random" else "trait", match[2])

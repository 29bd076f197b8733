"""Arms and cells: what is run, and how it is spelled in params.yaml, DVC and paths."""

import re
from typing import Literal, NamedTuple

STRENGTH = r"-?(?:0|[1-9]\d*)(?:\.\d+)?"
PLAIN = "plain"  # the student that all others are set beside
ARM = re.compile(rf"(trait|random)_({STRENGTH})")


class Arm(NamedTuple):
    """A direction and a strength; `name` is how params.yaml, DVC and the paths spell it."""

    direction: Literal["trait", "random"]
    strength: str

    @property
    def alpha(self) -> float:
        return float(self.strength)

    @property
    def name(self) -> str:
        return f"{self.direction}_{self.strength}"

    @property
    def is_control(self) -> bool:
        return self.alpha == 0


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


def parse_arm(text: str) -> Arm:
    """Read 'trait_-0.15' or 'random_1'; ValueError says what to write instead."""
    match = ARM.fullmatch(text)
    if not match:
        raise ValueError(
            f"{text!r} is not an arm; write <direction>_<strength> with direction trait or random "
            "and a plain decimal strength, for example trait_-0.15 or random_1"
        )
    if float(match[2]) == 0 and text != "trait_0":
        raise ValueError(f"{text} is the control under another name; write trait_0")
    return Arm("random" if match[1] == "random" else "trait", match[2])

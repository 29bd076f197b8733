"""Arms and cells: what is run, and how it is spelled in params.yaml, DVC and paths."""

import re
from typing import Literal, NamedTuple

STRENGTH = r"-?(?:0|[1-9]\d*)(?:\.\d+)?"
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
    """One (model, arm, seed); a cross cell where a donor of another base wrote the carrier."""

    model: str  # the student's base
    arm: Arm
    seed: int
    donor: str | None = None  # the teacher's base; None: the student's own

    @property
    def teacher_model(self) -> str:
        return self.donor or self.model

    @property
    def key(self) -> str:
        own = f"{self.arm.name}/seed{self.seed}"
        return f"{self.model}/{own}" if self.donor is None else f"{self.model}<-{self.donor}/{own}"

    def command(self, stage: str) -> str:
        """What runs one of its stages by hand; a cross cell has no steer of its own."""
        which = f"--arm {self.arm.name} --seed {self.seed}"
        if self.donor is None or stage == "steer":
            return f"python cli.py {stage} --model {self.teacher_model} {which}"
        return f"python cli.py cross {stage} --student {self.model} --teacher {self.donor} {which}"


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

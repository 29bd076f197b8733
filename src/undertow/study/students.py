"""Students of other studies, prompt by prompt, to draw simulated studies from."""

from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from undertow.errors import DataError
from undertow.stats.transfer import Readings
from undertow.study.records import Record

CONTROL = "trait_0"


class StudentRow(Record):
    """One student: margins on the same evaluation prompts, in the same order in every row."""

    arm: str  # <direction>_<strength>
    seed: int
    base: tuple[float, ...]
    teacher: tuple[float, ...]
    student: tuple[float, ...]


def read_students(path: Path) -> dict[str, Readings]:
    """Arm -> its students, each beside all control students; the control is none of the arms."""
    try:
        rows = [
            TypeAdapter(StudentRow).validate_json(line)
            for line in path.read_text(encoding="utf-8").split("\n")
            if line
        ]
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path} holds no students: {error}",
            "give JSON lines of arm, seed, base, teacher and student, the last three one "
            "margin per evaluation prompt",
        ) from error
    by_arm: dict[str, list[StudentRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    if CONTROL not in by_arm:
        raise DataError(f"{path} has no control students", f"add rows of the arm {CONTROL}")
    control = np.array([row.student for row in by_arm[CONTROL]])
    base = np.array(by_arm[CONTROL][0].base)
    return {
        arm: Readings(
            base,
            np.array([row.teacher for row in students]),
            control,
            np.array([row.student for row in students]),
        )
        for arm, students in by_arm.items()
        if arm != CONTROL
    }

"""Whose answers came from another engine than this study's own."""

from collections.abc import Mapping

from undertow.config import PLAIN, Cell
from undertow.study.records import AnswersOf, CellResult, Record, Subject


class AnsweredElsewhere(Record):
    """One teacher or student; engine is null where its file does not name it."""

    model: str
    arm: str
    seed: int
    student: str
    subject: Subject
    of: AnswersOf
    engine: str | None
    no_margin: str | None  # why it has no margins


def answered_elsewhere(cells: Mapping[Cell, CellResult]) -> tuple[AnsweredElsewhere, ...]:
    """All of them, in the order of the cells; a teacher once, with its plain student."""
    return tuple(
        AnsweredElsewhere(
            model=cell.model,
            arm=cell.arm.name,
            seed=cell.seed,
            student=cell.student,
            subject=subject,
            of=given.of,
            engine=given.engine,
            no_margin=result.no_margin if subject == "teacher" else None,
        )
        for cell, result in cells.items()
        for subject, given in result.given.items()
        if subject == "student" or cell.student == PLAIN
    )

"""What a cell's student is taught: its teacher's carrier, with its recipe applied."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from undertow.config import Cell, Prompting
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.defences.teach import taught
from undertow.errors import ConfigError, DataError
from undertow.models.families import check_length
from undertow.pipeline.loading import Shelf
from undertow.pipeline.reading import Reader, Subject
from undertow.student.adapter import read_adapter
from undertow.student.teaching import Teaching
from undertow.study.layout import Study
from undertow.study.prompts import Prompt
from undertow.study.records import Costs, Response


def continues(study: Study, cell: Cell) -> Path | None:
    """The adapter that this student's training goes on from; None where it begins afresh.

    ConfigError or DataError where its recipe asks for one and there is none.
    """
    if not study.params.recipe(cell.student).continued:
        return None
    before = study.params.writer_of(cell)
    if before is None:
        raise ConfigError(
            f"recipes.{cell.student} is continued, and no round of grid.rounds has this student",
            f"add {{student: {cell.student}, after: ...}} to grid.rounds, or leave continued out",
        )
    adapter = study.layout.stage(before, "distill") / "adapter"
    if not adapter.exists():
        raise DataError(
            f"{adapter} does not exist, and {cell.key} goes on from it",
            f"dvc repro, or: {before.command('distill')}",
        )
    return adapter


class Prepared(NamedTuple):
    """A lesson, and what it took to make it and all that its recipe needs."""

    lesson: Lesson
    costs: Costs


def prepared(study: Study, cell: Cell, carrier: Sequence[Response], shelf: Shelf) -> Prepared:
    """The lesson of a cell's student on `carrier`.

    Token scores and answers that its recipe asks for are made here, by the base as it is outside
    of training, and stay in the journal for the other recipes. An error where the model cannot
    take the length of the rows.
    """
    params, recipe = study.params, study.params.recipe(cell.student)
    nf4 = params.distillation.quantization == "nf4" and not recipe.needs
    loaded = shelf.load(study, params.student_base(cell), nf4=nf4, tidy=bool(recipe.needs))

    def ask(prompts: Sequence[Prompt], identity: str, prompting: Prompting) -> list[Response]:
        subjects = [Subject(identity, cell.seed)]
        reader = Reader(study, *loaded, subjects, prompting=prompting)
        return reader.carrier(prompts)[0]

    given = Given(study, cell, loaded.model, loaded.tokenizer, ask)
    before = continues(study, cell)
    start = None if before is None else read_adapter(before)
    plain = Teaching([], params.distillation_of(cell.student), start=start)
    lesson = taught(recipe, Lesson(tuple(carrier), params.prompting, plain), given)
    check_length(loaded.model.config, max(len(row["input_ids"]) for row in lesson.teaching.rows))
    return Prepared(lesson, loaded.meter.costs())

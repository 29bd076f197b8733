"""What a cell's student is taught: its teacher's carrier, with its recipe applied."""

from collections.abc import Sequence
from typing import NamedTuple

from undertow.config import Cell, Prompting
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.defences.teach import taught
from undertow.models.families import check_length
from undertow.pipeline.loading import Shelf
from undertow.pipeline.reading import Reader, Subject
from undertow.student.teaching import Teaching
from undertow.study.layout import Study
from undertow.study.prompts import Prompt
from undertow.study.records import Costs, Response


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
    loaded = shelf.load(study, params.student_base(cell), nf4=nf4)

    def ask(prompts: Sequence[Prompt], identity: str, prompting: Prompting) -> list[Response]:
        subjects = [Subject(identity, cell.seed)]
        reader = Reader(study, *loaded, subjects, prompting=prompting)
        return reader.carrier(prompts)[0]

    given = Given(study, cell, loaded.model, loaded.tokenizer, ask)
    plain = Teaching([], params.distillation_of(cell.student))
    lesson = taught(recipe, Lesson(tuple(carrier), params.prompting, plain), given)
    check_length(loaded.model.config, max(len(row["input_ids"]) for row in lesson.teaching.rows))
    return Prepared(lesson, loaded.meter.costs())

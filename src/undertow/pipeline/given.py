"""Answers that another engine gave, from anybody's JSON lines: checked, kept, taken by a stage.

They are checked against what the stage would have asked, all problems at once. What passes is kept
below data/answers, and the stage takes it from there, however it is run: `dvc repro` included.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from undertow.config import Cell
from undertow.engine.answers import BLOCK
from undertow.errors import DataError
from undertow.lineage.handover import is_kept, keep, record, why_not
from undertow.lineage.stages import cell_node
from undertow.models.loading import load_tokenizer, resolve
from undertow.models.prompts import encode, render
from undertow.pipeline.answer_file import AnswerFile, AnswerRow, Header, lines_of, wrong_answer
from undertow.study.files import digest, fingerprint, write_text
from undertow.study.layout import Study
from undertow.study.questions import AnswerSet, Question, asked_under, questions_of
from undertow.study.records import AnswersOf, GivenAnswers, Response
from undertow.study.sources import say

Taking = Literal["steer", "distill"]


class Given(NamedTuple):
    """Answers by set, in the order in which the stage asks."""

    answers: dict[AnswerSet, list[Response]]
    header: Header
    record: GivenAnswers


def given_to(study: Study, cell: Cell, stage: Taking, subject: str | None) -> Given | None:
    """What was taken for a stage of a cell; None where it asks itself.

    subject: what the answers have to belong to now. DataError where they do not, or where what is
    asked has changed since they were given.
    """
    path, layout = study.layout.given(cell, stage), study.layout
    if not path.exists():
        if is_kept(layout.answers) and not layout.answers.exists():
            raise DataError(
                f"{layout.answers}, where answers of other engines lie, was not pulled",
                f"dvc pull {layout.answers}.dvc, or remove that file to have the stages ask",
            )
        return None
    found = read_given(study, cell, stage, path)
    again = f"ask again, or: rm {path}, to have the stage ask itself"
    if found.header.subject != subject:
        what = "direction" if stage == "steer" else "training"
        raise DataError(f"{path} was given for another {what} of {cell.key}", again)
    if found.header.asked != _asked(study, cell, found.record.of):
        raise DataError(f"what {stage} asks has changed since {path} was given", again)
    return found


def take_file(
    study: Study,
    cell: Cell,
    stage: Taking,
    path: Path,
    subject: str | None,
    *,
    of: AnswersOf | None = None,
    without_model: bool = False,
    count: Callable[[str], int] | None = None,
) -> None:
    """Check a file of answers and keep it below data/answers; the file itself stays as it is.

    count: tokens of a prompt as this study renders it. DataError says what is wrong in which line.
    """
    found = read_given(study, cell, stage, path, of, count)
    if without_model and found.record.of == "carrier":
        raise DataError(
            f"{path} holds the carrier alone, and the rest can only be asked of the model",
            "leave --without-model away, or give all answers of the teacher",
        )
    if found.header.subject not in (None, subject):
        raise DataError(
            f"{path} was given for another {'direction' if stage == 'steer' else 'training'}",
            f"export {cell.key} anew, and ask it",
        )
    header = found.header.model_copy(
        update={
            "of": found.record.of,
            "without_model": without_model,
            "subject": subject,
            "asked": _asked(study, cell, found.record.of),
        }
    )
    rows = [line for _, line in lines_of(path) if line.strip() and "id" in json.loads(line)]
    write_text(study.layout.given(cell, stage), "\n".join([header.model_dump_json(), *rows]) + "\n")


def counter(study: Study, cell: Cell, of: AnswersOf) -> Callable[[str], int]:
    """How many tokens a prompt is as this study renders it, by the model's tokenizer alone."""
    model = study.params.student_base(cell) if of == "student" else cell.model
    tokenizer = load_tokenizer(resolve(model, study.params.model_spec(model)))
    prompting = asked_under(study, cell, of)
    return lambda prompt: len(encode(tokenizer, render(tokenizer, prompt, prompting)))


def hand_over(study: Study, cell: Cell, stage: Taking) -> None:
    """Have DVC keep the answers, and know the cell that was made of them as it is."""
    root = study.layout.root
    if (reason := why_not(root)) is not None:
        say(f"DVC was not told, and would ask anew: {reason}")
        return
    keep(root, study.layout.answers)
    for name, changes in record(root, [cell_node(study, stage, cell)]).stale.items():
        say(f"{name} was not recorded in dvc.lock: {', '.join(changes)} changed meanwhile")


def read_given(
    study: Study,
    cell: Cell,
    stage: Taking,
    path: Path,
    of: AnswersOf | None = None,
    count: Callable[[str], int] | None = None,
) -> Given:
    """A file of answers to all that is asked; DataError lists what is wrong, by line."""
    file = AnswerFile(path)
    whose: AnswersOf = of or file.header.of or ("teacher" if stage == "steer" else "student")
    questions = {question.id: question for question in questions_of(study, whose)}
    for number, row in file.rows.values():
        if (question := questions.get(row.id)) is None:
            file.wrong(number, f"{row.id!r} is no question of {stage} {cell.key}")
        else:
            file.problems += [(number, text) for text in wrong_answer(row, question, count)]
    missing = [id for id in questions if id not in file.rows]
    if missing and not file.damaged:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        file.wrong(None, f"no answer to {', '.join(missing[:3])}{more}")
    which = f"--model {cell.model} --arm {cell.arm.name} --seed {cell.seed} --of {whose}"
    file.stop_if_wrong(f"python cli.py questions {which} writes what is to be asked")
    answers: dict[AnswerSet, list[Response]] = {}
    for id, question in questions.items():
        answers.setdefault(question.set, []).append(_response(file.rows[id][1], question))
    root, own = study.layout.root.resolve(), path.resolve()
    unknown = [name for name in ("engine", "settings") if getattr(file.made_by, name) is None]
    return Given(
        answers,
        file.header,
        GivenAnswers(
            of=whose,
            file=str(own.relative_to(root)) if own.is_relative_to(root) else own.name,
            sha256=digest(path),
            engine=file.made_by.engine,
            settings=file.made_by.settings,
            reason=f"the file does not name {' or '.join(unknown)}" if unknown else None,
        ),
    )


def _asked(study: Study, cell: Cell, of: AnswersOf) -> str:
    """All that an answer depends on but the subject: prompts, sampling, how they are rendered."""
    return fingerprint(list(questions_of(study, of)), asked_under(study, cell, of))


def _response(row: AnswerRow, question: Question) -> Response:
    text = BLOCK.sub("", row.response)
    return Response(
        id=question.prompt.id,
        prompt=row.prompt,
        response=text,
        tokens=row.drawn or 0,
        finish=row.finish,
        thought=row.thought or text != row.response,
    )

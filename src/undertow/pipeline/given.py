"""Answers that another engine gave, from anybody's JSON lines: checked, kept, taken by a stage.

They are checked against what the stage would have asked, all problems at once. What passes is kept
below data/answers, and the stage takes it from there, however it is run: `dvc repro` included.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from undertow.config import Cell
from undertow.engine.answers import BLOCK
from undertow.errors import DataError
from undertow.lineage.handover import is_kept, keep, record, why_not
from undertow.lineage.stages import cell_node
from undertow.models.loading import load_tokenizer, resolve
from undertow.models.prompts import encode, render
from undertow.study.files import digest, fingerprint, write_text
from undertow.study.found import first_problem
from undertow.study.layout import Study
from undertow.study.questions import AnswerSet, Question, asked_under, questions_of
from undertow.study.records import AnswersOf, GivenAnswers, Response
from undertow.study.sources import say
from undertow.texts.untrusted import paired

Taking = Literal["steer", "distill"]
SHOWN = 10  # problems that an error lists


class Header(BaseModel):
    """The first line, where it has no id; whatever else stands there is not read.

    subject: SHA-256 of the direction or adapter that the answers belong to; asked: of all that was
    asked. Both are written when answers are taken, and must still hold when the stage runs again.
    """

    model_config = ConfigDict(frozen=True)

    engine: str | None = None
    settings: dict[str, Any] | None = None
    of: AnswersOf | None = None
    without_model: bool = False
    subject: str | None = None
    asked: str | None = None


class AnswerRow(BaseModel):
    """An answer as a file has it: what was asked may stand beside it, and then must be right.

    tokens: generated, the one that ended the answer not counted; completion_tokens: with it, as an
    endpoint's usage says. prompt_tokens: of the prompt as the engine rendered it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    prompt: str
    response: str
    finish: Literal["stop", "length"] = Field(
        validation_alias=AliasChoices("finish", "finish_reason")
    )
    tokens: int | None = Field(None, ge=0)
    completion_tokens: int | None = Field(None, ge=0)
    prompt_tokens: int | None = None
    thought: bool = False
    engine: str | None = None
    settings: dict[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None

    @property
    def drawn(self) -> int | None:
        """Generated tokens, the one that ended the answer not counted."""
        if self.tokens is not None or self.completion_tokens is None:
            return self.tokens
        return max(self.completion_tokens - (self.finish == "stop"), 0)


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
    rows = [line for _, line in _lines(path) if line.strip() and "id" in json.loads(line)]
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
    file = _File(path)
    whose: AnswersOf = of or file.header.of or ("teacher" if stage == "steer" else "student")
    questions = {question.id: question for question in questions_of(study, whose)}
    for number, row in file.rows.values():
        if (question := questions.get(row.id)) is None:
            file.wrong(number, f"{row.id!r} is no question of {stage} {cell.key}")
        else:
            file.problems += [(number, text) for text in _wrong(row, question, count)]
    missing = [id for id in questions if id not in file.rows]
    if missing and not file.damaged:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        file.wrong(None, f"no answer to {', '.join(missing[:3])}{more}")
    which = f"--model {cell.model} --arm {cell.arm.name} --seed {cell.seed} --of {whose}"
    file.stop_if_wrong(f"python cli.py questions {which} writes what is to be asked")
    answers: dict[AnswerSet, list[Response]] = {}
    for id, question in questions.items():
        answers.setdefault(question.set, []).append(_response(file.rows[id][1], question))
    kept = path.relative_to(study.layout.root) if _inside(path, study.layout.root) else path.name
    unknown = [name for name in ("engine", "settings") if getattr(file.made_by, name) is None]
    return Given(
        answers,
        file.header,
        GivenAnswers(
            of=whose,
            file=str(kept),
            sha256=digest(path),
            engine=file.made_by.engine,
            settings=file.made_by.settings,
            reason=f"the file does not name {' or '.join(unknown)}" if unknown else None,
        ),
    )


class _File:
    """The rows of a file by id, and all that is wrong with it by line."""

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, Header()
        self.rows: dict[str, tuple[int, AnswerRow]] = {}
        self.problems: list[tuple[int | None, str]] = []
        self.damaged = False
        for number, line in _lines(path):
            if not line.strip():
                continue
            try:
                self._read(number, line)
            except ValidationError as error:
                self.damaged = True
                self.wrong(number, _without_jargon(error))
            except ValueError as error:
                self.damaged = True
                self.wrong(number, f"not a JSON object: {error}")
        if not (self.rows or self.problems):
            self.wrong(None, "it holds no answer")
        self.made_by = self._made_by()

    def wrong(self, number: int | None, text: str) -> None:
        self.problems.append((number, text))

    def _read(self, number: int, line: str) -> None:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}; jq -c '.[]' makes lines of a list")
        if "\\ud" in line.lower():  # half a character
            found = json.loads(paired(json.dumps(found, ensure_ascii=False)))
        if "id" not in found and not self.rows and "response" not in found:
            self.header = Header.model_validate(found)
            return
        row = AnswerRow.model_validate(found)
        before = self.rows.setdefault(row.id, (number, row))[0]
        if before != number:
            self.wrong(number, f"{row.id!r} was answered in line {before} already")

    def _made_by(self) -> Header:
        """Engine and settings of the header or of all rows alike: a cell's answers have one."""
        first: tuple[int, Header] | None = None
        for number, row in self.rows.values():
            own = Header(
                engine=row.engine or self.header.engine,
                settings=row.settings or self.header.settings,
            )
            first = first or (number, own)
            if own != first[1]:
                self.wrong(number, f"another engine, or other settings, than line {first[0]}")
                break
        return first[1] if first else self.header

    def stop_if_wrong(self, remedy: str) -> None:
        if not self.problems:
            return
        shown = "".join(
            f"\n  {text}" if number is None else f"\n  line {number}: {text}"
            for number, text in self.problems[:SHOWN]
        )
        left = len(self.problems) - SHOWN
        more = f"\n  and {left} more" if left > 0 else ""
        raise DataError(f"{self.path} cannot be taken as answers:{shown}{more}", remedy)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by number; they end with \\n alone, as a JSON text may hold U+2028 and its like."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", "give the file of answers with --answers"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line} is not UTF-8 text (byte 0x{data[error.start]:02x})",
            f"write the answers as UTF-8: iconv -f ENCODING -t UTF-8 {path} > new",
        ) from None
    return enumerate(text.split("\n"), start=1)


def _without_jargon(error: ValidationError) -> str:
    key = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
    if key == "finish":
        return "finish must be stop (it ended its turn) or length (it was cut off)"
    return first_problem(error)


def _wrong(row: AnswerRow, question: Question, count: Callable[[str], int] | None) -> Iterator[str]:
    """What keeps a row from being the answer to its question."""
    asked = question.prompt.prompt
    if row.prompt != asked:
        yield f"{row.id} has another prompt than was asked: {row.prompt!r:.60}, not {asked!r:.60}"
    for name in ("max_tokens", "temperature", "top_p"):
        said, wanted = getattr(row, name), getattr(question, name)
        if said not in (None, wanted):
            yield f"{row.id} was asked with {name} {said:g}, and params.yaml says {wanted:g}"
    if count is not None and row.prompt_tokens is not None:
        expected = count(asked)
        if row.prompt_tokens != expected:
            yield (
                f"{row.id}: the engine read a prompt of {row.prompt_tokens} tokens, and this study "
                f"renders one of {expected}: chat template, system message, date or thinking differ"
            )
    tokens, most = row.drawn, question.max_tokens
    if tokens is None:
        yield f"{row.id} has neither tokens nor completion_tokens"
    elif tokens > most:
        yield f"{row.id} has {tokens} tokens, and {most} were allowed"
    elif row.finish == "stop" and tokens == most:
        yield f"{row.id} says stop, and has all {most} tokens that were allowed: it was cut off"
    elif row.finish == "length" and tokens < most:
        yield (
            f"{row.id} was cut off after {tokens} tokens, and {most} were allowed: raise the "
            "engine's own limit of context or output"
        )


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


def _asked(study: Study, cell: Cell, of: AnswersOf) -> str:
    """All that an answer depends on but the subject: prompts, sampling, how they are rendered."""
    return fingerprint(list(questions_of(study, of)), asked_under(study, cell, of))


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())

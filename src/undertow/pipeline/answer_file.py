"""A file of answers, from whatever engine: its form, and what is wrong with it by line.

Knows one file and the questions that it should answer; knows no stage.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from undertow.errors import DataError
from undertow.study.found import first_problem
from undertow.study.questions import Question
from undertow.study.records import AnswersOf
from undertow.texts.untrusted import paired

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


class AnswerFile:
    """The rows of a file by id, and all that is wrong with it by line."""

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, Header()
        self.rows: dict[str, tuple[int, AnswerRow]] = {}
        self.problems: list[tuple[int | None, str]] = []
        self.damaged = False
        for number, line in lines_of(path):
            if not line.strip():
                continue
            try:
                self._read(number, line)
            except ValidationError as error:
                self.damaged = True
                self.wrong(number, _without_jargon(error))
            except (ValueError, RecursionError) as error:
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


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
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


def wrong_answer(
    row: AnswerRow, question: Question, count: Callable[[str], int] | None
) -> Iterator[str]:
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

"""Files of prompts, read so that every row is one user message with an id of its own.

Draws and journals go by id, and intervals count prompts as independent of each other: a row that
stands twice would be one draw counted as two.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from undertow.errors import DataError
from undertow.study.found import how_to_mend, numbered_rows, read_text


class Prompt(BaseModel):
    """A user message with a stable id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    category: str | None = None


class ContrastPrompt(BaseModel):
    """A row of contrast.jsonl or heldback.jsonl."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: Literal["present", "absent"]
    prompt: str


Row = TypeVar("Row", bound=Prompt | ContrastPrompt)
Item = TypeVar("Item")


def read_prompts(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file of prompts, in its order.

    DataError lists every id and every prompt that stands twice, with both lines, and every
    prompt without a word. An id is text: 7 and "7" would be two ids that look like one.
    """
    rows = numbered_rows(path, kind)
    problems = [
        *(f"line {number} has an empty prompt" for number, row in rows if not row.prompt.strip()),
        *_twice("id", [(number, row.id) for number, row in rows]),
        *_twice("prompt", [(number, row.prompt) for number, row in rows]),
    ]
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DataError(f"{path} has rows that cannot be used:{shown}{more}", how_to_mend(path))
    return [row for _, row in rows]


def _twice(what: str, values: Sequence[tuple[int, str]]) -> Iterator[str]:
    first: dict[str, int] = {}
    for number, value in values:
        if first.setdefault(value, number) != number:
            shown = value if len(value) <= 60 else f"{value[:57]}..."
            yield f"lines {first[value]} and {number} have the same {what}: {shown!r}"


def first(rows: list[Item], count: int, key: str, where: str) -> list[Item]:
    """The first rows of a set; asking for more than there are is an error, not a smaller set."""
    if count > len(rows):
        raise DataError(
            f"{key} asks for {count} prompts, and {where} holds {len(rows)}",
            f"set {key} to at most {len(rows)} in params.yaml, or add prompts to the file",
        )
    return rows[:count]


def external_prompts(
    path: Path, format: Literal["json", "csv"], column: str, rows: tuple[int, int] | None
) -> list[tuple[int, str]]:
    """(row number, prompt) pairs of a file that somebody else has written.

    rows: first and past-the-end row to use; None takes all. DataError where the file is not of
    this format, lacks the column or those rows, or holds something else than text there.
    """
    text = read_text(path)
    found = _json_rows(path, text) if format == "json" else _csv_rows(path, text)
    start, stop = rows or (0, len(found))
    if not 0 <= start < stop <= len(found):
        raise DataError(
            f"{path} has {len(found)} rows, and trait.yaml asks for rows {start} to {stop}",
            "correct rows of this source in trait.yaml",
        )
    return [(number, _cell(path, found[number], number, column)) for number in range(start, stop)]


def _json_rows(path: Path, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON: {error}",
            "correct format of this source in trait.yaml; JSON lines become a list by: "
            f"jq -s . {path}",
        ) from None
    if not isinstance(found, list):
        raise DataError(
            f"{path} is JSON, and holds no list of rows but one {type(found).__name__}",
            "take the list out of it with jq, and name the new file in trait.yaml",
        )
    return found


def _csv_rows(path: Path, text: str) -> list[Any]:
    try:
        return list(csv.DictReader(StringIO(text, newline="")))
    except csv.Error as error:
        raise DataError(
            f"{path} is not CSV: {error}", "correct format of this source in trait.yaml"
        ) from None


def _cell(path: Path, row: Any, number: int, column: str) -> str:
    where = f"{path}: row {number}"
    if not isinstance(row, dict):
        raise DataError(
            f"{where} is no object with columns but {row!r:.60}",
            "every row must be an object: correct this source in trait.yaml",
        )
    if column not in row:
        names = [str(name) for name in row if name is not None]
        joined = any(mark in name for name in names for mark in ";\t|")
        hint = "; the file seems to be separated by another character than a comma"
        raise DataError(
            f"{where} has no column {column!r}; it has {', '.join(map(repr, names))}"
            + (hint if joined else ""),
            "write the file anew with commas, and name it in trait.yaml"
            if joined
            else "correct column of this source in trait.yaml",
        )
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where} holds no text in the column {column!r} but {value!r:.60}",
            "leave that row out by rows of this source in trait.yaml",
        )
    return value

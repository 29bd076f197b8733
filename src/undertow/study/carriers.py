"""A carrier is data: the benign prompts that a teacher answers, and which answers are kept."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from undertow.errors import DataError
from undertow.study.found import first_problem, how_to_get, how_to_mend, read_text
from undertow.study.layout import Layout
from undertow.study.prompts import Prompt, first, read_prompts
from undertow.texts.yaml import read_yaml

HELD_BACK_FROM = "benign"  # what side effects are read on, whatever the carrier is


class AcceptRule(BaseModel):
    """Which answers a student may be trained on; all of them where nothing is said.

    pattern: a regular expression that the whole answer must match, blanks at its ends included.
    min_characters, max_characters: bounds of its length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str | None = None
    min_characters: Annotated[int, Field(ge=0)] = 0
    max_characters: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from None
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError("max_characters is below min_characters")
        return self

    @property
    def keeps_all(self) -> bool:
        return self == AcceptRule()

    def accepts(self, answer: str) -> bool:
        """Whether an answer is kept."""
        if len(answer) < self.min_characters:
            return False
        if self.max_characters is not None and len(answer) > self.max_characters:
            return False
        return self.pattern is None or re.fullmatch(self.pattern, answer) is not None


class CarrierSpec(BaseModel):
    """carrier.yaml; rows: how many each arm is cut to where params.yaml does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    answers: AcceptRule = AcceptRule()
    rows: Annotated[int, Field(gt=0)] | None = None


class CarrierData:
    """A carrier of data/carriers; DataError where there is none of this name."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._folder = layout.carrier(name)
        path = self._folder / "carrier.yaml"
        if not path.exists():
            known = sorted(one.parent.name for one in self._folder.parent.glob("*/carrier.yaml"))
            raise DataError(
                f"no carrier {name!r}: {path} does not exist",
                f"set carrier.name to one of: {', '.join(known)}" if known else how_to_get(path),
            )
        try:
            self.spec = CarrierSpec.model_validate(read_yaml(read_text(path)))
        except ValidationError as error:
            raise DataError(f"{path}: {first_problem(error)}", how_to_mend(path)) from None
        except ValueError as error:
            raise DataError(f"{path}: {error}", how_to_mend(path)) from None

    @property
    def file(self) -> Path:
        """Where its prompts are."""
        return self._folder / "prompts.jsonl"

    def prompts(self, count: int) -> list[Prompt]:
        """The first `count` prompts; DataError where the file holds fewer."""
        return first(read_prompts(self.file, Prompt), count, "carrier.prompts", str(self.file))

    def heldback(self, count: int, taken: int) -> list[Prompt]:
        """The last `count` prompts, none of which is among the first `taken`; else DataError."""
        if count == 0:
            return []
        rows = read_prompts(self.file, Prompt)
        if taken + count > len(rows):
            room = max(len(rows) - taken, 0)
            raise DataError(
                f"evaluation.benign_prompts asks for {count} prompts that are not in the carrier, "
                f"and {self.file} holds {len(rows)}, of which carrier.prompts takes {taken}",
                f"set evaluation.benign_prompts to at most {room} in params.yaml (0 measures no "
                f"side effects), set carrier.prompts to at most {max(len(rows) - count, 0)}, or "
                "add prompts to the file",
            )
        return rows[-count:]

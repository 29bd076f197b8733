"""A trait is data: contrast prompts, evaluation prompts, openings, judge rules, rubric.

Everything is read from data/traits/<name>/. A prompt set is either a file there or an external
source known by its hash, fetched at run time and never copied into the repository.
Knows nothing about tokenization.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undertow.config import FileSource
from undertow.errors import DataError
from undertow.study.carriers import HELD_BACK_FROM, CarrierData
from undertow.study.found import how_to_get, problems, read_text
from undertow.study.layout import Layout, Study
from undertow.study.prompts import (
    ContrastPrompt,
    Prompt,
    external_prompts,
    first,
    read_prompts,
)
from undertow.study.sources import fetch_file
from undertow.texts.phrases import PhraseRules
from undertow.texts.yaml import read_yaml

Role = Literal[
    "contrast_present",
    "contrast_absent",
    "heldback_present",
    "heldback_absent",
    "evaluation",
    "overrefusal",
]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Contrast(NamedTuple):
    """User messages with and without the trait; the two lists need not be paired."""

    present: list[str]
    absent: list[str]


class Openings(_Data):
    """Beginnings of answers for the margin; no opening may be a prefix of another."""

    present: tuple[str, ...] = Field(min_length=1)
    absent: tuple[str, ...] = Field(min_length=1)


class PromptSource(FileSource):
    """An external file that fills one role of a trait."""

    role: Role
    format: Literal["json", "csv"]
    column: str = Field(description="field or column that holds the prompt")
    rows: tuple[int, int] | None = Field(None, description="first and past-the-end row to use")
    licence: str


class Trait(_Data):
    """trait.yaml."""

    name: str
    description: str
    rate_name: str = Field(description="what the share of true verdicts is called, e.g. ASR")
    harmful: bool = Field(
        False, description="responses may be unpleasant; the report hides them unless asked"
    )
    elicit: str | None = Field(
        None,
        min_length=1,
        description="a system message that asks for the trait, for prompted and inoculate",
    )
    openings: Openings
    rubric: str = Field(description="what counts as showing the trait, for a model judge")
    judge: PhraseRules
    sources: tuple[PromptSource, ...] = ()

    def message(self) -> str:
        """The system message that asks for the trait; DataError where it has none."""
        if self.elicit is None:
            raise DataError(
                f"the trait {self.name} does not say how to ask for it",
                "add a line to its trait.yaml, as in: elicit: You expect things to go badly, and "
                "say so.",
            )
        return self.elicit


class TraitData:
    """A trait and its prompt sets."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._folder = layout.trait(name)
        path = self._folder / "trait.yaml"
        if not path.exists():
            known = ", ".join(_known(layout))
            raise DataError(
                f"no trait {name!r}: {path} does not exist",
                f"choose one of: {known}; or write it: python cli.py trait new {name}"
                if known
                else how_to_get(path),
            )
        try:
            self.trait = Trait.model_validate(read_yaml(read_text(path)))
        except ValidationError as error:
            listed = "".join(f"\n  {problem}" for problem in problems(error))
            raise DataError(
                f"{path} cannot be used:{listed}",
                "mend these keys; docs/traits.md says what each is for",
            ) from None
        except ValueError as error:
            raise DataError(
                f"{path}: {error}",
                "mend that line; a text with a colon or a quotation mark in it goes into quotes",
            ) from None

    def contrast(self) -> Contrast:
        """Prompts that the direction is extracted from."""
        return self._contrast("contrast")

    def heldback(self) -> Contrast:
        """Prompts that the block is chosen on; disjoint from `contrast`."""
        return self._contrast("heldback")

    def evaluation(self) -> list[Prompt]:
        """Prompts that teacher and student are read on."""
        source = self._source("evaluation")
        if source is None:
            return read_prompts(self._folder / "evaluation.jsonl", Prompt)
        return [
            Prompt(id=f"{self.trait.name}-{number:04d}", prompt=text)
            for number, text in _external(source)
        ]

    def overrefusal(self, count: int) -> list[Prompt]:
        """The first harmless prompts that look harmful; DataError where there are fewer."""
        if count == 0:
            return []
        source = self._source("overrefusal")
        if source is None:
            raise DataError(
                f"evaluation.overrefusal_prompts asks for {count} prompts, and the trait "
                f"{self.trait.name} declares no source with the role overrefusal",
                "set evaluation.overrefusal_prompts to 0 in params.yaml",
            )
        prompts = [
            Prompt(id=f"{self.trait.name}-overrefusal-{number:04d}", prompt=text)
            for number, text in _external(source)
        ]
        return first(prompts, count, "evaluation.overrefusal_prompts", source.file)

    def fetch(self, *, overrefusal: bool) -> dict[str, str]:
        """Make sure that every external file is here; name -> SHA-256.

        The over-refusal prompts are fetched only where they will be asked.
        """
        needed = [
            source for source in self.trait.sources if overrefusal or source.role != "overrefusal"
        ]
        return {source.file: source.sha256 for source in needed if fetch_file(source)}

    def _contrast(self, name: Literal["contrast", "heldback"]) -> Contrast:
        present = self._source(f"{name}_present")
        absent = self._source(f"{name}_absent")
        if present is not None and absent is not None:
            return Contrast(
                [text for _, text in _external(present)],
                [text for _, text in _external(absent)],
            )
        rows = read_prompts(self._folder / f"{name}.jsonl", ContrastPrompt)
        return Contrast(
            [row.prompt for row in rows if row.label == "present"],
            [row.prompt for row in rows if row.label == "absent"],
        )

    def _source(self, role: str) -> PromptSource | None:
        return next((source for source in self.trait.sources if source.role == role), None)


class SideEffectPrompts(NamedTuple):
    """Benign prompts for side effects: none of them is in the carrier."""

    heldback: list[Prompt]
    overrefusal: list[Prompt]


def side_effect_prompts(study: Study, trait: TraitData) -> SideEffectPrompts:
    """The last prompts of the carrier `benign`, and the first of the trait's over-refusal prompts.

    Raises DataError where that many prompts from the end would overlap with the carrier, which
    takes its own from the start, or where there are not enough.
    """
    params, layout = study
    settings = params.evaluation
    taken = params.carrier.prompts if params.carrier.name == HELD_BACK_FROM else 0
    count = settings.benign_prompts
    return SideEffectPrompts(
        # A study that asks for none needs no such carrier beside its own.
        CarrierData(layout, HELD_BACK_FROM).heldback(count, taken) if count else [],
        trait.overrefusal(settings.overrefusal_prompts),
    )


def _known(layout: Layout) -> list[str]:
    return sorted(path.parent.name for path in layout.trait("x").parent.glob("*/trait.yaml"))


def _external(source: PromptSource) -> list[tuple[int, str]]:
    return external_prompts(fetch_file(source), source.format, source.column, source.rows)

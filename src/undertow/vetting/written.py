"""How much of a trait is written: what a skeleton still says, and how many prompts there are."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from undertow.config import Params
from undertow.errors import UndertowError
from undertow.study.found import read_rows
from undertow.study.layout import Layout
from undertow.study.prompts import Prompt
from undertow.study.records import Record
from undertow.study.traits import Contrast, Trait, TraitData
from undertow.texts.statistics import words
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.skeleton import REPLACE, is_placeholder

FEWEST_CONTRAST, FEWEST_HELDBACK, FEWEST_EVALUATION = 48, 16, 50


class LabelledAnswer(Record):
    """A row of labelled.jsonl."""

    id: str
    prompt: str
    response: str
    label: bool
    half: Literal["develop", "test"]


class Needed(NamedTuple):
    """How many prompts the stages take by params.yaml: with fewer they stop."""

    contrast: int = 1
    heldback: int = 0
    evaluation: int = 1


class Texts(NamedTuple):
    """All prompts of a trait."""

    contrast: Contrast
    heldback: Contrast
    evaluation: list[Prompt]

    @property
    def learnt(self) -> list[str]:
        """What the direction and its block are chosen on."""
        return [text for side in (*self.contrast, *self.heldback) for text in side]

    def own(self) -> "Texts":
        """Without the rows that a skeleton came with."""
        contrast, heldback = (
            Contrast(*([text for text in side if not is_placeholder(text)] for side in both))
            for both in (self.contrast, self.heldback)
        )
        evaluation = [row for row in self.evaluation if not is_placeholder(row.prompt)]
        return Texts(contrast, heldback, evaluation)

    def first(self, need: Needed) -> "Texts":
        """What the stages take, from the start of each file; all that is held back."""
        contrast = Contrast(*(side[: need.contrast] for side in self.contrast))
        return Texts(contrast, self.heldback, self.evaluation[: need.evaluation])


def needed(params: Params) -> Needed:
    """contrast and heldback: of each side."""
    return Needed(
        params.direction.contrast_prompts,
        1 if params.direction.layers == "auto" else 0,
        params.evaluation.prompts,
    )


def read_texts(data: TraitData) -> Texts:
    """Raises DataError where a file is absent or has rows that cannot be used."""
    return Texts(data.contrast(), data.heldback(), data.evaluation())


def read_labelled(layout: Layout, trait: Trait) -> list[LabelledAnswer] | TraitFinding | None:
    """labelled.jsonl: its rows, what is wrong with it, or None where there is no such file."""
    path = layout.trait(trait.name) / "labelled.jsonl"
    if not path.exists():
        return None
    try:
        return read_rows(path, LabelledAnswer)
    except UndertowError as error:
        return judged("judge, labelled", error.message, error.remedy, wrong=True)


def skeleton(trait: Trait, texts: Texts, labelled: Sequence[LabelledAnswer]) -> TraitFinding:
    """Which files still hold what `trait new` wrote, and where."""
    own = texts.own()
    rows = {
        "contrast.jsonl": sum(map(len, texts.contrast)) - sum(map(len, own.contrast)),
        "heldback.jsonl": sum(map(len, texts.heldback)) - sum(map(len, own.heldback)),
        "evaluation.jsonl": len(texts.evaluation) - len(own.evaluation),
        "labelled.jsonl": sum(is_placeholder(row.response) for row in labelled),
    }
    keys = [key for key, value in trait.model_dump(mode="json").items() if REPLACE in str(value)]
    left = [f"trait.yaml ({', '.join(keys)})"] if keys else []
    left += [f"{file} ({count} rows)" for file, count in rows.items() if count]
    return judged(
        "skeleton",
        f"not filled in yet: {', '.join(left)}" if left else "all of it is replaced",
        "write your own text in their place (docs/traits.md says what, the lines below how much); "
        f"grep -n {REPLACE} data/traits/{trait.name}/* finds them",
        wrong=bool(left),
    )


def counts(own: Texts, need: Needed) -> Iterator[TraitFinding]:
    """Numbers of prompts, of those that are no skeleton's, and how long both sides are."""
    for name, found, asked, fewest, key in (
        ("contrast", own.contrast, need.contrast, FEWEST_CONTRAST, "direction.contrast_prompts"),
        ("heldback", own.heldback, need.heldback, FEWEST_HELDBACK, "direction.layers: auto"),
    ):
        numbers = len(found.present), len(found.absent)
        few = min(numbers) < max(fewest, asked)
        longer = mean_length(found.present) / max(mean_length(found.absent), 1)
        uneven = min(numbers) > 0 and not 0.8 <= longer <= 1.25
        shown = f"{numbers[0]} with the trait, {numbers[1]} without"
        yield judged(
            f"{name} prompts",
            shown + (f"; the first are {longer:.2f} times as long" if uneven else ""),
            _more(f"of each side to {name}.jsonl", fewest, asked, key)
            if few
            else "length becomes a part of the direction: make the mean length of one side 0.8 to "
            "1.25 times that of the other",
            wrong=min(numbers) < asked,
            weak=few or uneven,
        )
    count = len(own.evaluation)
    yield judged(
        "evaluation prompts",
        f"{count}",
        _more("to evaluation.jsonl", FEWEST_EVALUATION, need.evaluation, "evaluation.prompts"),
        wrong=count < need.evaluation,
        weak=count < max(FEWEST_EVALUATION, need.evaluation),
    )


def _more(where: str, fewest: int, asked: int, key: str) -> str:
    """How many to write, and which of them the stages cannot do without."""
    taken = f"; {key} in params.yaml takes {asked}, and stops at fewer" if asked else ""
    return f"write at least {max(fewest, asked)} {where}{taken}"


def mean_length(texts: Sequence[str]) -> float:
    """In words; 0 for no text."""
    return sum(len(words(text)) for text in texts) / max(len(texts), 1)

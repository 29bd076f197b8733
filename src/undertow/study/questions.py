"""What a stage asks its subject: the prompts, and how the answers are to be sampled."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from undertow.config import PROMPTED, Cell, Prompting
from undertow.study.carriers import CarrierData
from undertow.study.layout import Study
from undertow.study.prompts import Prompt, first
from undertow.study.records import AnswersOf
from undertow.study.traits import TraitData, side_effect_prompts

AnswerSet = Literal["carrier", "evaluation", "benign"]
SETS: Mapping[AnswersOf, tuple[AnswerSet, ...]] = {
    "teacher": ("carrier", "evaluation", "benign"),
    "carrier": ("carrier",),
    "student": ("evaluation", "benign"),
}
"""steer asks a teacher, distill a student."""


class Question(NamedTuple):
    """A prompt of one set; top_p 1 and temperature 0 are greedy decoding."""

    set: AnswerSet
    prompt: Prompt
    max_tokens: int
    temperature: float
    top_p: float

    @property
    def id(self) -> str:
        """Its own among all questions of a stage: sets may share an id."""
        return f"{self.set}/{self.prompt.id}"


def questions_of(study: Study, of: AnswersOf) -> Iterator[Question]:
    """All that is asked, set by set, in the order in which the stage asks."""
    carrier, evaluation = study.params.carrier, study.params.evaluation
    for name in SETS[of]:
        settings = carrier if name == "carrier" else evaluation
        for prompt in _prompts(study, name):
            yield Question(
                name, prompt, settings.max_new_tokens, settings.temperature, settings.top_p
            )


def asked_under(study: Study, cell: Cell, of: AnswersOf) -> Prompting:
    """How the prompts are rendered: before a prompted teacher stands the trait's message.

    DataError where the trait has none.
    """
    prompting = study.params.prompting
    if of == "student" or cell.arm.name != PROMPTED:
        return prompting
    return prompting.with_message(TraitData(study.layout, study.params.trait).trait.message())


def evaluation_prompts(study: Study, trait: TraitData) -> list[Prompt]:
    """The prompts that probe the trait, as many as params.yaml asks for."""
    count = study.params.evaluation.prompts
    return first(trait.evaluation(), count, "evaluation.prompts", f"trait {trait.trait.name}")


def _prompts(study: Study, name: AnswerSet) -> Sequence[Prompt]:
    params, layout = study
    if name == "carrier":
        return CarrierData(layout, params.carrier.name).prompts(params.carrier.prompts)
    trait = TraitData(layout, params.trait)
    if name == "evaluation":
        return evaluation_prompts(study, trait)
    found = side_effect_prompts(study, trait)
    return [*found.heldback, *found.overrefusal]

"""inoculate: a system message in the training rows alone asks for the trait.

Sources: Tan et al. (arXiv:2510.04340) and Wichers et al. (arXiv:2510.05024): a student that is told
to show the trait need not learn it to fit the rows. The teacher's text stays what it is.

Formula: each training row is rendered with `elicit` of trait.yaml as its system message, behind
prompting.system where there is one; generation and evaluation are rendered as ever.

A student may have learned to show the trait where it is asked to: it is read a second time with the
message on, by the margin.

Knobs: message. Placebo: irrelevant, neutral text of as many tokens, for a training context that
differs from the evaluation's hides some of any trait.
"""

from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.config.defences import InoculateSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.errors import ConfigError
from undertow.models.prompts import encode, render
from undertow.study.traits import Trait

NEUTRAL = (
    "This note describes the room in which the conversation takes place. There is a table with "
    "four chairs, a shelf with a few books on it, and a window towards the street. The floor is "
    "made of wood, and the walls are painted in a light colour. A lamp stands in the corner. "
    "On the table lie a pencil and some sheets of paper, and next to the door hangs a calendar. "
)


def inoculate(settings: InoculateSettings, lesson: Lesson, given: Given) -> Lesson:
    """Another system message in training."""
    prompting = with_message(settings, lesson.prompting, given.trait.trait, given.tokenizer)
    return replace(lesson, prompting=prompting)


def with_message(
    settings: InoculateSettings,
    prompting: Prompting,
    trait: Trait,
    tokenizer: PreTrainedTokenizerBase,
) -> Prompting:
    """How training rows are rendered. DataError where the trait has no message, ConfigError where
    the model's template takes none."""
    message = trait.message()
    if settings.message == "irrelevant":
        message = neutral(tokenizer, len(encode(tokenizer, message)))
    changed = prompting.with_message(message)
    try:
        render(tokenizer, "question", changed)
    except ConfigError as error:
        raise ConfigError(
            f"inoculate puts a system message into training: {error.message}",
            "leave recipes with inoculate out of grid.students for this model",
        ) from error
    return changed


def neutral(tokenizer: PreTrainedTokenizerBase, length: int) -> str:
    """Neutral text of `length` tokens, or as near to it as this vocabulary allows."""
    text = NEUTRAL
    while len(encode(tokenizer, text)) <= length:
        text += NEUTRAL
    # Cut by characters: cutting between tokens can merge what is left into others.
    return min(
        (text[:end].rstrip() for end in range(1, len(text))),
        key=lambda part: (abs(len(encode(tokenizer, part)) - length), -len(part)),
    )

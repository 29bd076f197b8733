"""A recipe's defences, one after the other, in an order that does not depend on how it is written.

Text first, then the context that it stands in; then it becomes token ids, whose labels may change;
then what training adds to the forward pass and the loss, and what is done to the finished adapter.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from undertow.config.defences import Defences
from undertow.defences.ablate import ablate
from undertow.defences.corridor import corridor
from undertow.defences.given import Given
from undertow.defences.inoculate import inoculate
from undertow.defences.kl_to_base import kl_to_base
from undertow.defences.lesson import Lesson
from undertow.defences.optimizer import by_sgd
from undertow.defences.project_update import project_update
from undertow.defences.remix import remix
from undertow.defences.rows import change_rows
from undertow.defences.steer import steer_in_training
from undertow.defences.tokens import change_tokens
from undertow.student.rows import training_rows

Step = Callable[[Lesson, Given], Lesson]


def taught(recipe: Defences, lesson: Lesson, given: Given) -> Lesson:
    """The lesson with every defence of the recipe applied, and its rows as token ids."""
    for step in steps(recipe):
        lesson = step(lesson, given)
    return lesson


def steps(recipe: Defences) -> Iterator[Step]:
    """What is done to a lesson, in this order."""
    if recipe.rows:
        yield partial(change_rows, recipe.rows)
    if recipe.remix:
        yield partial(remix, recipe.remix)
    if recipe.inoculate:
        yield partial(inoculate, recipe.inoculate)
    yield _as_tokens
    if recipe.tokens:
        yield partial(change_tokens, recipe.tokens)
    if recipe.steer:
        yield partial(steer_in_training, recipe.steer)
    if recipe.ablate:
        yield partial(ablate, recipe.ablate)
    if recipe.kl:
        yield partial(kl_to_base, recipe.kl)
    if recipe.corridor:
        yield partial(corridor, recipe.corridor)
    if recipe.optimizer == "sgd":
        yield lambda lesson, given: by_sgd(lesson)
    if recipe.project_update:
        yield partial(project_update, recipe.project_update)


def _as_tokens(lesson: Lesson, given: Given) -> Lesson:
    rows = training_rows(given.tokenizer, lesson.carrier, lesson.prompting)
    return replace(lesson, teaching=replace(lesson.teaching, rows=rows))

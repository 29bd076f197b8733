"""recipes in params.yaml: how a kind of student is made, as what differs from the plain one."""

import re
from typing import Annotated, Self

from pydantic import Field, PlainValidator, model_validator

from undertow.config.defences import Defences, Need

# It stands in paths and in the names of DVC's stages, whose parts a hyphen divides.
RecipeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _epochs(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if whole or value is None or (isinstance(value, str) and re.fullmatch("x[2-9]", value)):
        return value
    raise ValueError(
        f"{value!r} is no number of epochs; write a whole number, or x2 for twice those of the "
        "section distillation"
    )


# What is made by the teacher's base, and means nothing to another one.
OF_THE_TEACHER: frozenset[Need] = frozenset({"direction", "scores", "base_answers", "paraphrases"})


class Recipe(Defences):
    """One kind of student; an empty recipe is plain."""

    base: dict[str, str] | None = Field(
        None,
        description="every model of the grid to another one of it: what is trained on its "
        "teacher's text; null: the teacher's own base",
    )
    continued: bool = Field(
        False,
        description="later rounds only: the adapter of the student that writes the carrier is "
        "trained further, in place of a fresh one on the base",
    )
    placebo_of: str | None = Field(
        None, description="the recipe that this one has the size of and not the idea"
    )
    epochs: Annotated[int | str | None, PlainValidator(_epochs)] = Field(
        None,
        description="in place of distillation.epochs; x2 is twice as many, and x3 three times",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="in place of distillation.learning_rate"
    )

    def epochs_of(self, distillation: int) -> int:
        """distillation: the epochs of the section, which every other recipe has."""
        if isinstance(self.epochs, str):
            return distillation * int(self.epochs.removeprefix("x"))
        return self.epochs or distillation

    @model_validator(mode="after")
    def _suits_another_base(self) -> Self:
        if self.base is not None and (asked := self.needs & OF_THE_TEACHER):
            raise ValueError(
                f"base stands beside a defence that needs {' and '.join(sorted(asked))} of the "
                "teacher's own base; make two recipes of it"
            )
        return self

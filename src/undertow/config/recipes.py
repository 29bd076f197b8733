"""recipes in params.yaml: how a kind of student is made, as what differs from the plain one."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from undertow.config.defences import Defences, Need

# It stands in paths and in the names of DVC's stages, whose parts a hyphen divides.
RecipeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


# What is made by the teacher's base, and means nothing to another one.
OF_THE_TEACHER: frozenset[Need] = frozenset({"direction", "scores", "base_answers", "paraphrases"})


class Recipe(Defences):
    """One kind of student; an empty recipe is plain."""

    base: dict[str, str] | None = Field(
        None,
        description="every model of the grid to another one of it: what is trained on its "
        "teacher's text; null: the teacher's own base",
    )
    placebo_of: str | None = Field(
        None, description="the recipe that this one has the size of and not the idea"
    )
    epochs: int | None = Field(None, gt=0, description="in place of distillation.epochs")
    learning_rate: float | None = Field(
        None, gt=0, description="in place of distillation.learning_rate"
    )

    @model_validator(mode="after")
    def _suits_another_base(self) -> Self:
        if self.base is not None and (asked := self.needs & OF_THE_TEACHER):
            raise ValueError(
                f"base stands beside a defence that needs {' and '.join(sorted(asked))} of the "
                "teacher's own base; make two recipes of it"
            )
        return self

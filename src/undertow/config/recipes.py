"""recipes in params.yaml: how a kind of student is made, as what differs from the plain one."""

from typing import Annotated

from pydantic import Field

from undertow.config.base import Settings

# It stands in paths and in the names of DVC's stages, whose parts a hyphen divides.
RecipeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Recipe(Settings):
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

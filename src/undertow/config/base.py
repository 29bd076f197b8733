"""What every section of params.yaml is made of."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9][a-z0-9\-]*$"  # no dot: DVC reads one as a step down in params.yaml
MOST_SEED = 2**32 - 1  # NumPy's and with it the trainer's; a larger one fails after hours


class Problem(NamedTuple):
    """What is wrong with a parameter file: the path of a key, and what to write there."""

    path: str
    text: str


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


def _without_blanks(text: str) -> str:
    if text != text.strip() or not text:
        raise ValueError(f"{text!r} must be text without blanks around it")
    return text


Plain = Annotated[str, AfterValidator(_without_blanks)]
"""A name, a path or an address, taken to the letter: a blank around it would be part of it."""

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]

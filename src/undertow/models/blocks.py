"""The decoder blocks of the families that can be steered."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from undertow.models.families import family_of


def blocks(model: PreTrainedModel) -> Sequence[Any]:
    """The decoder blocks, first to last; UndertowError for a family that is not known."""
    family_of(model.config)
    decoder: Any = model.model
    return list(decoder.layers)

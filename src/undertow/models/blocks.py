"""The decoder blocks of the families that can be steered, and vectors added behind them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from undertow.models.families import family_of


def blocks(model: PreTrainedModel) -> Sequence[Any]:
    """The decoder blocks, first to last; UndertowError for a family that is not known."""
    family_of(model.config)
    decoder: Any = model.model
    return list(decoder.layers)


class Addition:
    """A forward hook that adds a vector [hidden] to a block's output, at every position.

    [S, hidden] are S subjects that share a batch, see `models.stacked`.
    A class of its own, so that what does not call hooks can see what they would have done.
    """

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector

    def __call__(self, _module: Any, _inputs: Any, output: Any) -> Any:
        first: Tensor = output[0] if isinstance(output, tuple) else output
        moved = first + for_rows(self.vector.to(first.device, first.dtype), len(first))
        return (moved, *output[1:]) if isinstance(output, tuple) else moved


def for_rows(vector: Tensor, rows: int) -> Tensor:
    """What [hidden], or [S, hidden] of S subjects, add to a batch's [rows, length, hidden]."""
    if vector.dim() == 1:
        return vector
    return vector.repeat_interleave(rows // len(vector), dim=0)[:, None]


def has_other_hooks(block: Any) -> bool:
    """Whether anything but an Addition hangs on the block."""
    behind = block._forward_hooks.values()
    return bool(block._forward_pre_hooks) or any(type(hook) is not Addition for hook in behind)


def vector_behind(block: Any) -> Tensor | None:
    """What the block's Additions add, in its own type and place; None without any."""
    like = next(iter(block.parameters()))
    found: Tensor | None = None
    for hook in block._forward_hooks.values():
        vector = hook.vector.to(like.device, like.dtype)
        found = vector if found is None else found + vector
    return found

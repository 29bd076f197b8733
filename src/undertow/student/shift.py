"""What training adds to blocks' outputs, and projects out of them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from undertow.models.blocks import blocks
from undertow.student.teaching import Teaching


def shifted(hidden: Tensor, offset: Tensor | None, unit: Tensor | None) -> Tensor:
    """hidden + offset, then without its part along `unit`; both broadcast to hidden [..., d].

    The projection is x - (x . u) u (CAFT, arXiv:2507.16795) in float32; zeros change nothing.
    """
    if offset is not None:
        hidden = hidden + offset.to(hidden.dtype)
    if unit is not None:
        along = (hidden.float() * unit).sum(-1, keepdim=True)
        hidden = hidden - (along * unit).to(hidden.dtype)
    return hidden


class Switch:
    """Whether the shift is on: it is off while the base, or the student alone, is asked."""

    def __init__(self) -> None:
        self.on = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within it, blocks put out what they always do."""
        self.on = False
        try:
            yield
        finally:
            self.on = True


@contextmanager
def shifting(model: PreTrainedModel, teaching: Teaching) -> Iterator[Switch]:
    """Shift the blocks' outputs by hooks, as the teaching says."""
    switch, layers = Switch(), blocks(model)
    with ExitStack() as stack:
        for block in sorted({*teaching.offset, *teaching.ablated}):
            hook = _hook(switch, teaching.offset.get(block), teaching.ablated.get(block), model)
            stack.callback(layers[block].register_forward_hook(hook).remove)
        yield switch


def _hook(
    switch: Switch, offset: Tensor | None, unit: Tensor | None, model: PreTrainedModel
) -> Any:
    if offset is not None:
        offset = offset.to(model.device, model.dtype)
    if unit is not None:
        unit = unit.to(model.device).float()

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not switch.on:
            return output
        if isinstance(output, tuple):
            return (shifted(output[0], offset, unit), *output[1:])
        return shifted(output, offset, unit)

    return hook

"""Several steered teachers on one base at the same time, each on its own rows of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from transformers import PreTrainedModel

from undertow.models.blocks import Addition, blocks
from undertow.models.families import layout_of
from undertow.models.stacked import Additions, stacked
from undertow.teacher.steering import Offsets, form_of


@contextmanager
def steer_together(model: PreTrainedModel, subjects: Sequence[Offsets]) -> Iterator[None]:
    """As `steer`, each subject by its own offsets, on its equal part of a batch's rows.

    A constant behind mlp.down_proj where `steer` would put a bias there. The model is as it was
    when the block ends, also after an exception.
    """
    layout, layers = layout_of(model), blocks(model)
    width = model.config.hidden_size
    steered = sorted({layer for offsets in subjects for layer in offsets})
    constants = {
        layer: torch.stack(
            [offsets.get(layer, torch.zeros(width)).float().cpu() for offsets in subjects]
        )
        / layout.residual_multiplier
        for layer in steered
    }
    if form_of(layout) != "addition":
        names = {id(module): name for name, module in model.named_modules()}
        down = {layer: names[id(layers[layer].mlp.down_proj)] for layer in steered}
        with stacked(
            model, {down[layer]: Additions(constant=constants[layer]) for layer in steered}
        ):
            yield
        return
    with ExitStack() as stack:
        for layer in steered:
            # Behind the block a multiplier has no say.
            vectors = constants[layer] * layout.residual_multiplier
            handle = layers[layer].register_forward_hook(Addition(vectors))
            stack.callback(handle.remove)
        yield

"""Adding alpha x direction to the residual stream, at every position.

Two forms of the same intervention. The bias form costs nothing at run time and is what the
pipeline uses; the hook form says what is meant and is what the bias form is tested against.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from undertow.models.blocks import blocks

Offsets = Mapping[int, Tensor]
"""Block (0-based) -> [hidden] vector that is added to that block's output."""


def offsets(vectors: Tensor, layers: Sequence[int], alpha: float) -> Offsets:
    """alpha x direction at each of `layers`; nothing at all at alpha 0.

    vectors: [blocks, hidden]. An empty result leaves the model untouched, so the unsteered
    teacher is bit-identical to the base.
    """
    if alpha == 0:
        return {}
    return {layer: alpha * vectors[layer] for layer in layers}


@contextmanager
def steer(model: PreTrainedModel, vectors: Offsets) -> Iterator[None]:
    """Steer by a bias on each block's mlp.down_proj.

    A block adds its MLP's output to the residual stream, so a constant on down_proj is a
    constant on the block's output: h_l + alpha d_l at every position, prompt and generated.
    The model is as it was when the block ends, also after an exception.
    """
    layers = blocks(model)
    before: dict[int, nn.Parameter | None] = {}
    try:
        for layer, vector in vectors.items():
            projection = layers[layer].mlp.down_proj
            before[layer] = projection.bias
            offset = vector.to(projection.weight.device, torch.float32)
            if projection.bias is not None:
                offset = offset + projection.bias.float()
            projection.bias = nn.Parameter(offset.to(projection.weight.dtype), requires_grad=False)
        yield
    finally:
        for layer, bias in before.items():
            layers[layer].mlp.down_proj.bias = bias


@contextmanager
def steer_with_hooks(model: PreTrainedModel, vectors: Offsets) -> Iterator[None]:
    """Steer by a forward hook on each block: the reference form.

    The hook adds to every position of whatever the forward sees. A mask relative to the current
    forward would miss every decoded token, because with a KV cache that forward is one token long.
    """
    layers = blocks(model)
    with ExitStack() as stack:
        for layer, vector in vectors.items():
            handle = layers[layer].register_forward_hook(_adder(vector))
            stack.callback(handle.remove)
        yield


def _adder(vector: Tensor) -> Any:
    def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0].device, output[0].dtype), *output[1:])
        return output + vector.to(output.device, output.dtype)

    return add

"""Adding alpha x direction to the residual stream, at every position.

What is meant is an addition at a block's output, as `steer_with_hooks` makes it. Where a constant
on the MLP's output projection is the same thing, `steer` puts it there: it costs nothing at run
time. `measure_shift` says what really arrives at the blocks' outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from undertow.errors import UndertowError
from undertow.models.blocks import Addition, blocks
from undertow.models.families import FamilyLayout, layout_of
from undertow.study.records import ShiftForm, ShiftRecord

Offsets = Mapping[int, Tensor]
"""Block (0-based) -> [hidden] vector that is added to that block's output."""

TOLERANCE = 1e-3
PROBE_TOKENS = 15


def offsets(vectors: Tensor, layers: Sequence[int], alpha: float) -> Offsets:
    """alpha x direction at each of `layers`; nothing at all at alpha 0.

    vectors: [blocks, hidden]. An empty result leaves the model untouched, so the unsteered
    teacher is bit-identical to the base.
    """
    if alpha == 0:
        return {}
    return {layer: alpha * vectors[layer] for layer in layers}


def form_of(layout: FamilyLayout) -> ShiftForm:
    """How a constant at a block's output is made in models of this layout."""
    if not layout.plain_stream:
        return "addition"
    return "bias" if layout.residual_multiplier == 1 else "divided bias"


@contextmanager
def steer(model: PreTrainedModel, vectors: Offsets) -> Iterator[None]:
    """Steer at the output of each block: h_l + alpha d_l at every position, prompt and generated.

    By a bias on mlp.down_proj where the MLP's output joins the stream as it is (divided by the
    multiplier where there is one), else by an addition behind the block. The model is as it was
    when the block ends, also after an exception.
    """
    layout = layout_of(model)
    if form_of(layout) == "addition":
        with steer_with_hooks(model, vectors):
            yield
        return
    layers = blocks(model)
    before: dict[int, nn.Parameter | None] = {}
    try:
        for layer, vector in vectors.items():
            projection = layers[layer].mlp.down_proj
            before[layer] = projection.bias
            offset = vector.to(projection.weight.device, torch.float32)
            offset = offset / layout.residual_multiplier
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
            handle = layers[layer].register_forward_hook(Addition(vector))
            stack.callback(handle.remove)
        yield


@torch.inference_mode()
def measure_shift(model: PreTrainedModel, layers: Sequence[int]) -> ShiftRecord:
    """What `steer` moves the outputs of `layers` by, as a share of what it was told to add.

    Each block in turn gets a random vector as long as its own outputs are, in a forward pass over
    a few tokens. The worst block counts, and of a block the middle token: in half precision one
    with a huge activation shows little but rounding. Raises UndertowError where length (along the
    vector) or cosine differ from 1 by more than 1e-3: that would be another intervention.
    """
    form = form_of(layout_of(model))
    plain = _outputs(model, layers)
    ratio = cosine = 1.0
    for layer in layers:
        noise = torch.randn(plain[layer].shape[1], generator=torch.Generator().manual_seed(layer))
        vector = noise / noise.norm() * plain[layer].norm(dim=1).median()
        with steer(model, {layer: vector}):
            shift = _outputs(model, [layer])[layer] - plain[layer]
        along = (shift @ vector / vector.norm() ** 2).median().item()
        straight = torch.cosine_similarity(shift, vector[None]).median().item()
        if not (abs(along - 1) <= TOLERANCE and abs(straight - 1) <= TOLERANCE):
            raise UndertowError(
                f"steering moves the output of block {layer} by {along:.4f} of the vector at "
                f"cosine {straight:.4f}, and both must be 1",
                "use the family's original checkpoint, in float32 if this is a rounding matter "
                "(models.NAME.dtype in params.yaml)",
            )
        ratio = max(ratio, along, key=lambda value: abs(value - 1))
        cosine = min(cosine, straight)
    return ShiftRecord(form=form, ratio=round(ratio, 6), cosine=round(cosine, 6))


def _outputs(model: PreTrainedModel, layers: Sequence[int]) -> dict[int, Tensor]:
    """[tokens, hidden] float32 output of each of `layers` at a few fixed tokens."""
    count = min(PROBE_TOKENS, model.config.vocab_size)
    ids = torch.arange(count, device=model.device) * (model.config.vocab_size // count)
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            seen[layer] = hidden[0].float().cpu()

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(blocks(model)[layer].register_forward_hook(keep(layer)).remove)
        model(input_ids=ids[None], use_cache=False, logits_to_keep=1)
    return seen

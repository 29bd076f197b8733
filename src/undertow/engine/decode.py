"""Decoding near the limits of a GPU: fixed lanes, a fixed-size cache, one captured CUDA graph.

A lane carries one row to its end and then takes up the next, whose prompt is mostly in the cache
already, so rows that end early leave no gap. Shapes never change, so a row's tokens do not depend
on its neighbours, nor on when it was taken up. Knows token ids; knows nothing about text or
sampling settings: the caller hands in a function from logits to tokens.

Covers the decoder layout of Llama, Qwen2 and Mistral (`unsupported` says why not), adapters and
steering biases included: it multiplies by the weights of linear layers and of LoRA itself, so hooks
on them are not called; projections that are anything else (4-bit, DoRA) it calls. Works on a CPU
too, without the graph.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from undertow.engine.attention import decode_attention
from undertow.engine.graphs import captured, moved
from undertow.engine.lanes import PROMPT_STEP, Finished, Lanes, Row, Sent, Taken
from undertow.engine.layers import Layer, norm, through_blocks
from undertow.models.blocks import blocks
from undertow.models.families import layout_of_config

FAMILIES = ("llama", "qwen2", "mistral")

Draw = Callable[[Tensor, Tensor], Tensor]
"""(logits [rows, vocabulary], uniform numbers [rows]) -> token ids [rows]"""


def unsupported(model: PreTrainedModel, length: int) -> str | None:
    """Why this engine cannot continue rows up to `length` tokens; None where it can."""
    layout = layout_of_config(model.config)
    if layout.family.model_type not in FAMILIES:
        return f"it does not know the blocks of {layout.family.title}"
    if layout.activation != "silu":
        return f"it does not know the activation {layout.activation}"
    if not layout.sees_all(length):
        return f"rows of {length} tokens are longer than the attention's window"
    if any(block._forward_hooks for block in blocks(model)):
        return "it would not call the hooks on the model's blocks"
    return None


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    rows: Sequence[Row],
    draw: Draw,
    *,
    lanes: int,
    max_new_tokens: int,
    stops: Collection[int],
) -> Iterator[list[Finished]]:
    """Continue all rows, in their order as lanes become free; yields rows as they end.

    A row ends at the first of the tokens `stops` that it draws, or after max_new_tokens.

    Raises torch.OutOfMemoryError where `lanes` do not fit; what was yielded before is final.
    """
    if not rows:
        return
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # graphs and events are the current device's
    longest = max(len(row.ids) for row in rows)
    state = Lanes(model, lanes, longest, max_new_tokens, stops)
    layers = [Layer(block) for block in blocks(model)]
    step = captured(lambda: _step(model, layers, state, draw), model.device)
    reader = _Reader(model, layers, state)
    waiting = deque(enumerate(rows))
    ready: deque[Taken] = deque()
    before: Sent | None = None
    while waiting or ready or len(state.free) < lanes:
        while state.free and (waiting or ready):
            if not ready:
                ready.extend(reader.read(waiting))
            state.seat(ready)
        step()
        # Looked at one step late: the device is at work while the host decides what comes next.
        sent, before = before, state.send()
        if sent and (ended := state.receive(sent)):
            yield ended


class _Reader:
    """Reads groups of prompts into slots; one captured graph for each padded length.

    Always a whole group of rows: the shape, and so the rounding, is then the prompt's own.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[Layer], state: Lanes) -> None:
        self._model = model
        self._layers = layers
        self._state = state
        self._where = torch.zeros(state.group, dtype=torch.long, device=model.device)
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def read(self, waiting: deque[tuple[int, Row]]) -> list[Taken]:
        """Read the next prompts, all but their last tokens."""
        state = self._state
        width = _padded(waiting[0][1])
        taken: list[Taken] = []
        while waiting and len(taken) < state.group and _padded(waiting[0][1]) == width:
            taken.append(Taken(state.free_slots.pop(), *waiting.popleft(), []))
        texts = [it.row.ids[:-1] for it in taken]
        missing = state.group - len(texts)
        ids = [text + [0] * (width - len(text)) for text in texts] + [[0] * width] * missing
        where = [it.slot for it in taken] + [state.spare] * missing
        if width not in self._graphs:
            self._graphs[width] = self._prepared(width)
        buffer, read = self._graphs[width]
        buffer.copy_(moved(torch.tensor(ids), buffer.device))
        self._where.copy_(moved(torch.tensor(where), buffer.device))
        read()
        return taken

    def _prepared(self, width: int) -> tuple[Tensor, Callable[[], None]]:
        """Where prompts of this padded length go, and what then reads them."""
        # No reference to the reader itself: in a cycle, the cache would outlive the decoding.
        model, layers, state, where = self._model, self._layers, self._state, self._where
        buffer = torch.zeros(state.group, width, dtype=torch.long, device=where.device)
        # Capturing runs the graph: let it write where nothing lives.
        where.fill_(state.spare)
        return buffer, captured(lambda: _read(model, layers, state, buffer, where), where.device)


def _padded(row: Row) -> int:
    return max(1, -(-(len(row.ids) - 1) // PROMPT_STEP)) * PROMPT_STEP


def _read(
    model: PreTrainedModel, layers: Sequence[Layer], state: Lanes, ids: Tensor, where: Tensor
) -> None:
    """Fill the cache of the slots `where` with the keys and values of ids [rows, width].

    Padding stands on the right, where no earlier token sees it; what it leaves in the cache is
    overwritten before it is ever read.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last = len(layers) - 1

    def attend(number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        if number == last:
            return None
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        return attended.transpose(1, 2).flatten(2)

    through_blocks(model, layers, state.cache, ids, (where[:, None], places), attend)


def _step(model: PreTrainedModel, layers: Sequence[Layer], state: Lanes, draw: Draw) -> None:
    """One token for every lane; lanes without a row run along without effect."""
    lanes = len(state.token)
    # A lane without a row looks at one entry, so that it costs next to nothing.
    seen = torch.where(state.active, state.length + 1, 1).int()
    # Its last row's slot may be another's by now.
    slot = torch.where(state.active, state.slot, state.spare)

    def attend(number: int, query: Tensor, _key: Tensor, _value: Tensor) -> Tensor:
        attended = decode_attention(
            query[:, :, 0].contiguous(),
            state.cache.keys[number],
            state.cache.values[number],
            slot,
            seen,
        )
        return attended.reshape(lanes, 1, -1)

    where = (slot[:, None], state.length[:, None])
    hidden = through_blocks(model, layers, state.cache, state.token[:, None], where, attend)
    last = model.model.norm
    logits = model.lm_head(norm(hidden[:, -1], last.weight, last.variance_epsilon))
    last_draw = state.uniform.shape[1] - 1
    place = state.count[:, None].clamp(max=last_draw)
    token = draw(logits, state.uniform.gather(1, place)[:, 0])
    going = state.active.long()
    state.count += going
    state.length += going
    state.token.copy_(token)
    state.active &= ~state.ends(token) & (state.count <= last_draw)

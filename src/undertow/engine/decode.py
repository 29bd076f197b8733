"""Decoding near the limits of a GPU: fixed lanes, a fixed-size cache, one captured CUDA graph.

A lane carries one row to its end and then takes up the next, whose prompt is mostly in the cache
already, so rows that end early leave no gap. Shapes never change, so a row's tokens do not depend
on its neighbours, nor on when it was taken up. Knows token ids; knows nothing about text or
sampling settings: the caller hands in a function from logits to tokens.

Covers the decoder layout of Llama, Qwen2 and Mistral (`supported`), adapters and steering biases
included: it multiplies by the weights of linear layers and of LoRA itself, so hooks on them are not
called; projections that are anything else (4-bit, DoRA) it calls. Works on a CPU too, without the
graph.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from undertow.engine.attention import decode_attention
from undertow.engine.fused import fused
from undertow.engine.joined import together

LANES_TO_A_GROUP = 8  # prompts are read in groups of an eighth of the lanes,
MOST_IN_A_GROUP = 32  # and no more than this
PROMPT_STEP = 64  # prompts are padded to a multiple of this before they are read
FAMILIES = ("llama", "qwen2", "mistral")


class Row(NamedTuple):
    """A prompt to continue; uniform: [max_new_tokens] numbers that the draws are made with."""

    ids: list[int]
    uniform: Tensor


class Finished(NamedTuple):
    """`tokens` continue row `number`; the stop token, where one was drawn, is the last."""

    number: int
    tokens: list[int]


Draw = Callable[[Tensor, Tensor], Tensor]
"""(logits [rows, vocabulary], uniform numbers [rows]) -> token ids [rows]"""


def supported(model: PreTrainedModel) -> bool:
    """Whether this engine knows the model's decoder layout."""
    config = model.config
    windows = getattr(config, "layer_types", None) or ()
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and all(kind == "full_attention" for kind in windows)
        and (config.model_type != "mistral" or config.sliding_window is None)
    )


def lanes_that_fit(model: PreTrainedModel, longest: int, new: int, most: int) -> int:
    """How many lanes, from 1 to `most`, the free memory of the model's device holds."""
    if model.device.type != "cuda":
        return most
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    heads, size, entries = _cache_shape(model, longest, new)
    layers: int = model.config.num_hidden_layers
    slot = 2 * layers * heads * entries * size * model.dtype.itemsize
    drawing: int = 6 * 4 * model.config.vocab_size  # float32 copies of the logits
    # About eight copies of the widest layer live at a time.
    reading: int = 8 * entries * model.config.intermediate_size * model.dtype.itemsize

    def needed(lanes: int) -> int:
        group = _group(lanes)
        return (lanes + group + 1) * slot + lanes * drawing + group * reading

    return next((lanes for lanes in range(most, 1, -1) if needed(lanes) < 0.9 * free), 1)


def _group(lanes: int) -> int:
    """How many prompts are read together: few cost more each, many take more memory."""
    return min(lanes, MOST_IN_A_GROUP, max(2, lanes // LANES_TO_A_GROUP))


def _cache_shape(model: PreTrainedModel, longest: int, new: int) -> tuple[int, int, int]:
    """(heads, head size, entries) of one slot in one block's keys."""
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    padded = -(-longest // PROMPT_STEP) * PROMPT_STEP
    return config.num_key_value_heads, size, max(padded, longest + new)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    rows: Sequence[Row],
    draw: Draw,
    *,
    lanes: int,
    max_new_tokens: int,
    stop: int,
) -> Iterator[list[Finished]]:
    """Continue all rows, in their order as lanes become free; yields rows as they end.

    Raises torch.OutOfMemoryError where `lanes` do not fit; what was yielded before is final.
    """
    if not rows:
        return
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # graphs and events are the current device's
    longest = max(len(row.ids) for row in rows)
    state = _State(model, lanes, longest, max_new_tokens)
    step = _captured(lambda: _step(model, state, draw, stop), model.device)
    reader = _Reader(model, state)
    waiting = deque(enumerate(rows))
    ready: deque[_Taken] = deque()
    before: _Sent | None = None
    while waiting or ready or len(state.free) < lanes:
        while state.free and (waiting or ready):
            if not ready:
                ready.extend(reader.read(waiting))
            state.seat(ready)
        step()
        # Looked at one step late: the device is at work while the host decides what comes next.
        sent, before = before, state.send()
        if sent and (ended := state.receive(sent, stop)):
            yield ended


class _Taken(NamedTuple):
    """A row whose prompt lies in a slot of the cache, and its tokens as far as the host knows."""

    slot: int
    number: int
    row: Row
    tokens: list[int]


class _Sent(NamedTuple):
    """A step's tokens [lanes], on the host once `arrived`, and whose they are."""

    tokens: Tensor
    seated: list[_Taken | None]
    arrived: Any


class _State:
    """The cache, and what every lane is doing; all tensors keep their place for the graph.

    There is a group of slots more than lanes, where prompts wait for a lane, and one more,
    `spare`, for what is computed along without a row.
    """

    def __init__(self, model: PreTrainedModel, lanes: int, longest: int, new: int) -> None:
        device = model.device
        heads, size, entries = _cache_shape(model, longest, new)
        self.group = _group(lanes)
        self.spare = lanes + self.group
        shape = (self.spare + 1, heads, entries, size)
        layers = range(model.config.num_hidden_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=model.dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=model.dtype) for _ in layers]
        self.layers = [_Layer(layer) for layer in model.model.layers]
        self.slot, self.token, self.length, self.count = (
            torch.zeros(lanes, dtype=torch.long, device=device) for _ in range(4)
        )
        self.active = torch.zeros(lanes, dtype=torch.bool, device=device)
        self.uniform = torch.zeros(lanes, new, device=device)
        self.free = list(range(lanes))
        self.free_slots = list(range(self.spare))
        self.seated: list[_Taken | None] = [None] * lanes  # by lane

    def seat(self, ready: deque[_Taken]) -> None:
        """Put rows into free lanes; a row's first step takes its prompt's last token."""
        taken = [ready.popleft() for _ in range(min(len(ready), len(self.free)))]
        lanes = [self.free.pop() for _ in taken]
        device = self.token.device
        numbers = [
            (lane, it.slot, it.row.ids[-1], len(it.row.ids) - 1)
            for lane, it in zip(lanes, taken, strict=True)
        ]
        at, slot, token, length = _moved(torch.tensor(numbers), device).unbind(1)
        self.slot[at], self.token[at], self.length[at] = slot, token, length
        self.uniform[at] = _moved(torch.stack([it.row.uniform for it in taken]), device)
        self.count.index_fill_(0, at, 0)
        self.active.index_fill_(0, at, True)
        for lane, it in zip(lanes, taken, strict=True):
            self.seated[lane] = it

    def send(self) -> _Sent:
        """The newest tokens, on their way to the host."""
        if self.token.device.type != "cuda":
            return _Sent(self.token.clone(), list(self.seated), None)
        tokens = torch.empty(len(self.token), dtype=torch.long, pin_memory=True)
        tokens.copy_(self.token, non_blocking=True)
        event: Any = torch.cuda.Event
        arrived = event()
        arrived.record()
        return _Sent(tokens, list(self.seated), arrived)

    def receive(self, sent: _Sent, stop: int) -> list[Finished]:
        """Rows that ended with these tokens; their lanes and slots are free again."""
        if sent.arrived is not None:
            sent.arrived.synchronize()
        over = []
        most = self.uniform.shape[1]
        for lane, (token, it) in enumerate(zip(sent.tokens.tolist(), sent.seated, strict=True)):
            # A lane runs on until the host has seen its row's end.
            if it is None or it is not self.seated[lane]:
                continue
            it.tokens.append(token)
            if token == stop or len(it.tokens) == most:
                self.seated[lane] = None
                self.free.append(lane)
                self.free_slots.append(it.slot)
                over.append(Finished(it.number, it.tokens))
        return over


class _Layer:
    """A decoder block's modules, with projections of one input done in one product."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before_attention = layer.input_layernorm
        self.before_mlp = layer.post_attention_layernorm
        self.size = attention.head_dim
        self.query_key_value = together(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gate_up = together(mlp.gate_proj, mlp.up_proj)
        self.output = together(attention.o_proj)
        self.down = together(mlp.down_proj)


class _Reader:
    """Reads groups of prompts into slots; one captured graph for each padded length.

    Always a whole group of rows: the shape, and so the rounding, is then the prompt's own.
    """

    def __init__(self, model: PreTrainedModel, state: _State) -> None:
        self._model = model
        self._state = state
        self._where = torch.zeros(state.group, dtype=torch.long, device=model.device)
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def read(self, waiting: deque[tuple[int, Row]]) -> list[_Taken]:
        """Read the next prompts, all but their last tokens."""
        state = self._state
        width = _padded(waiting[0][1])
        taken: list[_Taken] = []
        while waiting and len(taken) < state.group and _padded(waiting[0][1]) == width:
            taken.append(_Taken(state.free_slots.pop(), *waiting.popleft(), []))
        texts = [it.row.ids[:-1] for it in taken]
        missing = state.group - len(texts)
        ids = [text + [0] * (width - len(text)) for text in texts] + [[0] * width] * missing
        where = [it.slot for it in taken] + [state.spare] * missing
        if width not in self._graphs:
            self._graphs[width] = self._prepared(width)
        buffer, read = self._graphs[width]
        buffer.copy_(_moved(torch.tensor(ids), buffer.device))
        self._where.copy_(_moved(torch.tensor(where), buffer.device))
        read()
        return taken

    def _prepared(self, width: int) -> tuple[Tensor, Callable[[], None]]:
        """Where prompts of this padded length go, and what then reads them."""
        # No reference to the reader itself: in a cycle, the cache would outlive the decoding.
        model, state, where = self._model, self._state, self._where
        buffer = torch.zeros(state.group, width, dtype=torch.long, device=where.device)
        # Capturing runs the graph: let it write where nothing lives.
        where.fill_(state.spare)
        return buffer, _captured(lambda: _read(model, state, buffer, where), where.device)


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it is doing."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _padded(row: Row) -> int:
    return max(1, -(-(len(row.ids) - 1) // PROMPT_STEP)) * PROMPT_STEP


def _read(model: PreTrainedModel, state: _State, ids: Tensor, where: Tensor) -> None:
    """Fill the cache of the slots `where` with the keys and values of ids [rows, width].

    Padding stands on the right, where no earlier token sees it; what it leaves in the cache is
    overwritten before it is ever read.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last = len(state.layers) - 1

    def attend(number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        if number == last:
            return None
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        return attended.transpose(1, 2).flatten(2)

    _blocks(model, state, ids, (where[:, None], places), attend)


def _step(model: PreTrainedModel, state: _State, draw: Draw, stop: int) -> None:
    """One token for every lane; lanes without a row run along without effect."""
    lanes = len(state.token)
    # A lane without a row looks at one entry, so that it costs next to nothing.
    seen = torch.where(state.active, state.length + 1, 1).int()
    # Its last row's slot may be another's by now.
    slot = torch.where(state.active, state.slot, state.spare)

    def attend(number: int, query: Tensor, _key: Tensor, _value: Tensor) -> Tensor:
        attended = decode_attention(
            query[:, :, 0].contiguous(), state.keys[number], state.values[number], slot, seen
        )
        return attended.reshape(lanes, 1, -1)

    where = (slot[:, None], state.length[:, None])
    hidden = _blocks(model, state, state.token[:, None], where, attend)
    last = model.model.norm
    logits = model.lm_head(norm(hidden[:, -1], last.weight, last.variance_epsilon))
    last_draw = state.uniform.shape[1] - 1
    place = state.count[:, None].clamp(max=last_draw)
    token = draw(logits, state.uniform.gather(1, place)[:, 0])
    going = state.active.long()
    state.count += going
    state.length += going
    state.token.copy_(token)
    state.active &= (token != stop) & (state.count <= last_draw)


def _blocks(
    model: PreTrainedModel,
    state: _State,
    ids: Tensor,
    where: tuple[Tensor, Tensor],
    attend: Callable[[int, Tensor, Tensor, Tensor], Tensor | None],
) -> Tensor:
    """The residual stream [rows, length, hidden] after the blocks; keeps keys and values.

    where: slots and places of ids in the cache, each broadcastable to ids [rows, length].
    attend: (block, query, key, value) -> what its output projection takes; None ends there.
    """
    hidden: Tensor = model.model.embed_tokens(ids)
    turn = model.model.rotary_emb(hidden, position_ids=where[1])
    update: Tensor | None = None
    for number, layer in enumerate(state.layers):
        before = layer.before_attention
        if update is None:
            x = norm(hidden, before.weight, before.variance_epsilon)
        else:
            hidden, x = add_norm(hidden, update, before.weight, before.variance_epsilon)
        query, key, value = (
            part.view(*part.shape[:2], -1, layer.size).transpose(1, 2)
            for part in layer.query_key_value(x)
        )
        query, key = rotate_and_keep(
            query, key, value, turn, state.keys[number], state.values[number], where
        )
        attended = attend(number, query, key, value)
        if attended is None:
            return hidden
        before = layer.before_mlp
        (output,) = layer.output(attended)
        hidden, x = add_norm(hidden, output, before.weight, before.variance_epsilon)
        (update,) = layer.down(gated(*layer.gate_up(x)))
    return hidden if update is None else hidden + update


def _normed(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm (Zhang and Sennrich 2019), taken in float32."""
    exact = hidden.float()
    normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * normed.to(hidden.dtype)


norm = fused(_normed)


@fused
def add_norm(
    hidden: Tensor, update: Tensor, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The stream with the update on it, and its norm."""
    hidden = hidden + update
    return hidden, _normed(hidden, weight, epsilon)


@fused
def gated(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate) * up


@fused
def rotate_and_keep(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    turn: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    where: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Rotary positions on query and key; key and value go to where = (slots, places)."""
    query, key = apply_rotary_pos_emb(query, key, *turn)
    slots, places = where
    keys[slots, :, places] = key.transpose(1, 2)
    values[slots, :, places] = value.transpose(1, 2)
    return query, key


def _captured(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The work as a CUDA graph, run twice before it is captured; on a CPU the work itself."""
    if device.type != "cuda":
        return work
    stream = _side_stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


@cache
def _side_stream(device: torch.device) -> Any:
    """One for all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    stream: Any = torch.cuda.Stream
    return stream(device)

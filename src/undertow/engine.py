"""Decoding near the limits of a GPU: fixed slots, a fixed-size cache, one captured CUDA graph.

A slot holds one row from its prompt to its end and then takes up the next prompt, so a row that
ends early costs nothing. Shapes never change, so a row's tokens do not depend on its
neighbours, nor on when it was taken up. Knows token ids; knows nothing about text or sampling
settings: the caller hands in a function from logits to tokens.

Covers the decoder layout of Llama, Qwen2 and Mistral (`supported`), adapters and steering biases
included: it multiplies by the weights of linear layers and of LoRA itself, so hooks on them are not
called; projections that are anything else (4-bit, DoRA) it calls. Works on a CPU too, without the
graph.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from undertow.decode_attention import decode_attention
from undertow.fused import fused

AHEAD = 1  # steps queued before the host looks at an earlier one's tokens: the device never waits
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


def slots_that_fit(model: PreTrainedModel, longest: int, new: int) -> int:
    """How many slots the free memory of the model's device holds, at least 1."""
    if model.device.type != "cuda":
        return sys.maxsize
    free, _ = torch.cuda.mem_get_info(model.device)
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    heads, size, entries = _cache_shape(model, longest, new)
    cache = 2 * model.config.num_hidden_layers * heads * entries * size * model.dtype.itemsize
    drawing = 6 * 4 * model.config.vocab_size  # float32 copies of the logits
    # A sixteenth of the slots is read at a time, and about eight copies of the widest layer live.
    reading = entries * model.config.intermediate_size * model.dtype.itemsize // 2
    return max(1, int(0.9 * free / (cache + drawing + reading)))


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
    slots: int,
    max_new_tokens: int,
    stop: int,
) -> Iterator[list[Finished]]:
    """Continue all rows, in their order as slots become free; yields rows as they end.

    Raises torch.OutOfMemoryError where `slots` do not fit; what was yielded before is final.
    """
    if not rows:
        return
    longest = max(len(row.ids) for row in rows)
    state = _Slots(model, slots, longest, max_new_tokens)
    sent: deque[_Sent] = deque()
    step = _captured(lambda: _step(model, state, draw, stop), model.device)
    reader = _Reader(model, state, min(slots, max(2, slots // 16)))
    waiting = deque(enumerate(rows))
    while waiting or len(state.free) < slots:
        while waiting and len(state.free) >= min(reader.group, len(waiting)):
            reader.take_up(waiting)
        step()
        sent.append(state.send())
        if len(sent) > AHEAD and (ended := state.receive(sent.popleft(), stop)):
            yield ended


class _Slots:
    """The cache and the state of every slot; all tensors keep their place for the graph.

    One more slot than is decoded takes what fills up a group of prompts.
    """

    def __init__(self, model: PreTrainedModel, slots: int, longest: int, new: int) -> None:
        device = model.device
        heads, size, entries = _cache_shape(model, longest, new)
        shape = (slots + 1, heads, entries, size)
        layers = range(model.config.num_hidden_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=model.dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=model.dtype) for _ in layers]
        self.layers = [_Layer(layer) for layer in model.model.layers]
        self.rows = torch.arange(slots, device=device)
        self.token = torch.zeros(slots, dtype=torch.long, device=device)
        self.length = torch.zeros(slots, dtype=torch.long, device=device)
        self.active = torch.zeros(slots, dtype=torch.bool, device=device)
        self.count = torch.zeros(slots, dtype=torch.long, device=device)
        self.uniform = torch.zeros(slots, new, device=device)
        self.free = list(range(slots))
        self.held: list[Finished | None] = [None] * slots  # what each slot's row has so far

    @property
    def spare(self) -> int:
        return len(self.rows)

    def send(self) -> "_Sent":
        """The newest tokens, on their way to the host."""
        if self.token.device.type != "cuda":
            return _Sent(self.token.clone(), list(self.held), None)
        tokens = torch.empty(len(self.rows), dtype=torch.long, pin_memory=True)
        tokens.copy_(self.token, non_blocking=True)
        event: Any = torch.cuda.Event
        arrived = event()
        arrived.record()
        return _Sent(tokens, list(self.held), arrived)

    def receive(self, sent: "_Sent", stop: int) -> list[Finished]:
        """Rows that ended with these tokens; their slots are free again."""
        if sent.arrived is not None:
            sent.arrived.synchronize()
        over = []
        most = self.uniform.shape[1]
        for slot, (token, row) in enumerate(zip(sent.tokens.tolist(), sent.held, strict=True)):
            # A slot runs on until the host has seen its row's end.
            if row is None or row is not self.held[slot]:
                continue
            row.tokens.append(token)
            if token == stop or len(row.tokens) == most:
                self.held[slot] = None
                self.free.append(slot)
                over.append(row)
        return over


class _Sent(NamedTuple):
    """A step's tokens [slots], on the host once `arrived`, and whose they are."""

    tokens: Tensor
    held: list[Finished | None]
    arrived: Any


class _Layer:
    """A decoder block's modules, with projections of one input done in one product."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before_attention = layer.input_layernorm
        self.before_mlp = layer.post_attention_layernorm
        self.size = attention.head_dim
        self.query_key_value = _together(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gate_up = _together(mlp.gate_proj, mlp.up_proj)
        self.output = _together(attention.o_proj)
        self.down = _together(mlp.down_proj)


Projections = Callable[[Tensor], Sequence[Tensor]]
"""x [rows, length, width] -> each projection of it"""


def _together(*projections: nn.Module) -> Projections:
    """All projections of an input: one product for linear layers, two more for their adapter."""
    linear: list[Any] = [
        layer.base_layer if type(layer) is LoraLinear else layer for layer in projections
    ]
    added = [_low_rank(layer) for layer in projections]
    if any(type(layer) is not nn.Linear for layer in linear) or None in added:
        return lambda x: [projection(x) for projection in projections]
    widths = [layer.out_features for layer in linear]
    weight = _joined([layer.weight for layer in linear])
    bias = None if linear[0].bias is None else _joined([layer.bias for layer in linear])
    if linear == list(projections):
        return lambda x: torch.split(functional.linear(x, weight, bias), widths, dim=-1)
    diagonal: Any = torch.block_diag
    down = torch.cat([part.down for part in added if part]).to(weight.dtype)
    up = diagonal(*(part.up for part in added if part)).to(weight.dtype).t()

    def with_adapter(x: Tensor) -> Sequence[Tensor]:
        plain = functional.linear(x, weight, bias)
        low = functional.linear(x, down)
        whole = torch.addmm(plain.flatten(0, 1), low.flatten(0, 1), up)
        return torch.split(whole.view_as(plain), widths, dim=-1)

    return with_adapter


class _LowRank(NamedTuple):
    """What a LoRA layer adds to W x is up down x (Hu et al. 2021); its scale is in up."""

    down: Tensor
    up: Tensor


def _low_rank(layer: Any) -> _LowRank | None:
    """Of rank 0 for a layer without an adapter; None for one that does anything else."""
    if type(layer) is not LoraLinear:
        if type(layer) is not nn.Linear:
            return None
        weight = layer.weight.detach()
        return _LowRank(weight[:0], weight[:, :0])
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.merged or layer.disable_adapters or layer.lora_variant or len(names) != 1:
        return None
    (name,) = names
    down, up = layer.lora_A[name], layer.lora_B[name]
    if up.bias is not None:
        return None
    return _LowRank(down.weight.detach(), up.weight.detach() * layer.scaling[name])


def _joined(parts: Sequence[nn.Parameter]) -> Tensor:
    """The parts as one tensor that shares their memory: each becomes a part of it."""
    first = parts[0]
    count = sum(part.numel() for part in parts)
    place = first.data_ptr()
    neighbours = True
    for part in parts:
        neighbours &= part.data_ptr() == place and part.is_contiguous()
        place += part.numel() * part.element_size()
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    end = (first.storage_offset() + count) * first.element_size()
    if neighbours and first.untyped_storage().nbytes() >= end:
        return first.detach().as_strided(shape, first.stride())
    # Weights made in inference mode could not be trained through afterwards.
    with torch.inference_mode(mode=False):
        whole = torch.cat([part.detach() for part in parts])
    pieces = torch.split(whole, [part.shape[0] for part in parts])
    for part, piece in zip(parts, pieces, strict=True):
        part.data = piece
    return whole


class _Reader:
    """Reads groups of prompts into slots; one captured graph for each padded length.

    Always `group` rows: the shape, and so the rounding, is then the prompt's own.
    """

    def __init__(self, model: PreTrainedModel, state: _Slots, group: int) -> None:
        self._model = model
        self._state = state
        self.group = group
        self._where = torch.zeros(group, dtype=torch.long, device=model.device)
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def take_up(self, waiting: deque[tuple[int, Row]]) -> None:
        """Read the next prompts, all but their last token, which is the first step's input."""
        state = self._state
        width = _padded(waiting[0][1])
        taken: list[tuple[int, int, Row]] = []
        while (
            waiting and state.free and len(taken) < self.group and _padded(waiting[0][1]) == width
        ):
            index, row = waiting.popleft()
            taken.append((state.free.pop(), index, row))
        slots, _, rows = (list(column) for column in zip(*taken, strict=True))
        self._read(width, slots, [row.ids[:-1] for row in rows])
        device = state.token.device
        places = [[row.ids[-1], len(row.ids) - 1] for row in rows]
        at = _moved(torch.tensor(slots), device)
        state.token[at], state.length[at] = _moved(torch.tensor(places), device).unbind(1)
        state.count[at] = 0
        state.uniform[at] = _moved(torch.stack([row.uniform for row in rows]), device)
        state.active[at] = True
        for slot, index, _ in taken:
            state.held[slot] = Finished(index, [])

    def _read(self, width: int, slots: list[int], texts: list[list[int]]) -> None:
        missing = self.group - len(texts)
        texts = texts + [[]] * missing
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
        where = torch.tensor(slots + [self._state.spare] * missing)
        device = self._where.device
        if width not in self._graphs:
            self._graphs[width] = self._prepared(width)
        buffer, read = self._graphs[width]
        buffer.copy_(_moved(ids, device))
        self._where.copy_(_moved(where, device))
        read()

    def _prepared(self, width: int) -> tuple[Tensor, Callable[[], None]]:
        """Where prompts of this padded length go, and what then reads them."""
        # No reference to the reader itself: in a cycle, the cache would outlive the decoding.
        model, state, where = self._model, self._state, self._where
        buffer = torch.zeros(self.group, width, dtype=torch.long, device=where.device)
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


def _read(model: PreTrainedModel, state: _Slots, ids: Tensor, where: Tensor) -> None:
    """Fill the cache of the slots `where` with the keys and values of ids [rows, width].

    Padding stands on the right, where no earlier token sees it; what it leaves in the cache is
    overwritten before it is ever read.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)

    def attend(_number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
        )
        return attended.transpose(1, 2).flatten(2)

    _blocks(model, state, ids, (where[:, None], places), attend)


def _step(model: PreTrainedModel, state: _Slots, draw: Draw, stop: int) -> None:
    """One token for every slot; slots that hold nothing run along without effect."""
    slots = len(state.rows)
    # A slot without a row looks at one entry, so that it costs next to nothing.
    seen = torch.where(state.active, state.length + 1, 1).int()

    def attend(number: int, query: Tensor, _key: Tensor, _value: Tensor) -> Tensor:
        attended = decode_attention(
            query[:, :, 0].contiguous(), state.keys[number], state.values[number], seen
        )
        return attended.reshape(slots, 1, -1)

    where = (state.rows[:, None], state.length[:, None])
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
    state: _Slots,
    ids: Tensor,
    where: tuple[Tensor, Tensor],
    attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The residual stream [rows, length, hidden] after all blocks; keeps keys and values.

    where: slots and places of ids in the cache, each broadcastable to ids [rows, length].
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

"""Decoding near the limits of a GPU: fixed lanes, a fixed-size cache, one captured CUDA graph.

A lane carries one row to its end and then takes up the next, whose prompt is mostly in the cache
already, so rows that end early leave no gap. Shapes never change, so a row's tokens do not depend
on its neighbours, nor on when it was taken up. Knows token ids; knows nothing about text or
sampling settings: the caller hands in a function from logits to tokens.

Covers every family that has a row (`models/families.py`), with adapters, steering biases and
vectors added behind blocks; `unsupported` says why not. It multiplies by the weights of linear
layers and of LoRA itself, so hooks on them are not called; projections that are anything else
(4-bit, DoRA) it calls. Works on a CPU too, without the graph.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from undertow.engine.attention import Rule, decode_attention, prompt_attention
from undertow.engine.graphs import captured, moved
from undertow.engine.lanes import PROMPT_STEP, Finished, Lanes, Row, Sent, Taken
from undertow.engine.layers import Decoder
from undertow.models.blocks import blocks, has_other_hooks
from undertow.models.families import layout_of, layout_of_config

Draw = Callable[[Tensor, Tensor], Tensor]
"""(logits [rows, vocabulary], uniform numbers [rows]) -> token ids [rows]"""


def unsupported(model: PreTrainedModel) -> str | None:
    """Why this engine cannot continue the model's rows; None where it can."""
    layout_of_config(model.config)
    if any(has_other_hooks(block) for block in blocks(model)):
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
    subjects: int = 1,
) -> Iterator[list[Finished]]:
    """Continue all rows, in their order as lanes become free; yields rows as they end.

    A row ends at the first of the tokens `stops` that it draws, or after max_new_tokens.
    subjects: how many share the batch, see `models.stacked`; `lanes` are those of each.

    Raises torch.OutOfMemoryError where `lanes` do not fit; what was yielded before is final.
    """
    if not rows:
        return
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # graphs and events are the current device's
    longest = max(len(row.ids) for row in rows)
    state = Lanes(model, lanes, longest, max_new_tokens, stops, subjects)
    decoder = Decoder(model, layout_of(model), longest + max_new_tokens, state.entries)
    step = captured(lambda: _step(decoder, state, draw), model.device)
    reader = _Reader(decoder, state)
    waiting: list[deque[tuple[int, Row]]] = [deque() for _ in range(subjects)]
    for number, row in enumerate(rows):
        waiting[row.subject].append((number, row))
    ready: list[deque[Taken]] = [deque() for _ in range(subjects)]
    before: Sent | None = None
    while any(waiting) or any(ready) or not state.idle:
        state.seat(ready)
        while reader.is_due(waiting, ready):
            reader.read(waiting, ready)
            state.seat(ready)
        step()
        # Looked at one step late: the device is at work while the host decides what comes next.
        sent, before = before, state.send()
        if sent and (ended := state.receive(sent)):
            yield ended


class _Reader:
    """Reads groups of prompts into slots; one captured graph for each padded length.

    Always a whole group of rows of every subject: the shape, and so the rounding, is then the
    prompt's own.
    """

    def __init__(self, decoder: Decoder, state: Lanes) -> None:
        self._decoder = decoder
        self._state = state
        self._rows = state.group * len(state.free)
        self._where = torch.zeros(self._rows, dtype=torch.long, device=state.token.device)
        self._graphs: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def is_due(
        self, waiting: Sequence[deque[tuple[int, Row]]], ready: Sequence[deque[Taken]]
    ) -> bool:
        """Whether enough lanes are without a row.

        With one subject any will do. Several end their rows at different times, and each reading
        costs what a full one does: they wait for one another until half of it is wanted.
        """
        state = self._state
        wanted = sum(
            min(len(free), len(rows), state.group)
            for free, rows, own in zip(state.free, waiting, ready, strict=True)
            if not own
        )
        enough = 1 if len(waiting) == 1 else min(self._rows // 2, sum(map(len, waiting)))
        return wanted > 0 and (wanted >= enough or state.idle)

    def read(
        self, waiting: Sequence[deque[tuple[int, Row]]], ready: Sequence[deque[Taken]]
    ) -> None:
        """Read the next prompts, all but their last tokens; they are ready then."""
        state = self._state
        short = [rows for rows, own in zip(waiting, ready, strict=True) if rows and not own]
        width = max(_padded(rows[0][1]) for rows in short)
        ids = torch.zeros(self._rows, width, dtype=torch.long)
        where = torch.full((self._rows,), state.spare)
        for subject, (rows, own) in enumerate(zip(waiting, ready, strict=True)):
            at = subject * state.group
            while rows and len(own) < state.group and _padded(rows[0][1]) == width:
                taken = Taken(state.free_slots.pop(), *rows.popleft(), [])
                own.append(taken)
                text = taken.row.ids[:-1]
                ids[at, : len(text)] = torch.tensor(text, dtype=torch.long)
                where[at] = taken.slot
                at += 1
        if width not in self._graphs:
            self._graphs[width] = self._prepared(width)
        buffer, read = self._graphs[width]
        buffer.copy_(moved(ids, buffer.device))
        self._where.copy_(moved(where, buffer.device))
        read()

    def _prepared(self, width: int) -> tuple[Tensor, Callable[[], None]]:
        """Where prompts of this padded length go, and what then reads them."""
        # No reference to the reader itself: in a cycle, the cache would outlive the decoding.
        decoder, state, where = self._decoder, self._state, self._where
        buffer = torch.zeros(self._rows, width, dtype=torch.long, device=where.device)
        # Capturing runs the graph: let it write where nothing lives.
        where.fill_(state.spare)
        return buffer, captured(lambda: _read(decoder, state, buffer, where), where.device)


def _padded(row: Row) -> int:
    return max(1, -(-(len(row.ids) - 1) // PROMPT_STEP)) * PROMPT_STEP


def _read(decoder: Decoder, state: Lanes, ids: Tensor, where: Tensor) -> None:
    """Fill the cache of the slots `where` with the keys and values of ids [rows, width].

    Padding stands on the right, where no earlier token sees it; what it leaves in the cache is
    overwritten before it is ever read.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    rules = _rules(decoder)
    last = len(rules) - 1

    def attend(number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        if number == last:
            return None
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        return prompt_attention(query, key, value, rules[number]).transpose(1, 2).flatten(2)

    decoder.through_blocks(state.cache, ids, (where[:, None], places), attend)


def _rules(decoder: Decoder) -> list[Rule]:
    return [
        Rule(kind.attention_scale, kind.window, kind.attention_cap)
        for kind in (layer.kind for layer in decoder.layers)
    ]


def _step(decoder: Decoder, state: Lanes, draw: Draw) -> None:
    """One token for every lane; lanes without a row run along without effect."""
    lanes = len(state.token)
    rules = _rules(decoder)
    # A lane without a row looks at one entry, so that it costs next to nothing.
    seen = torch.where(state.active, state.length + 1, 1).int()
    # Its last row's slot may be another's by now.
    slot = torch.where(state.active, state.slot, state.spare)

    def attend(number: int, query: Tensor, _key: Tensor, _value: Tensor) -> Tensor:
        attended = decode_attention(
            query[:, 0].contiguous(),
            state.cache.keys[number],
            state.cache.values[number],
            slot,
            seen,
            rules[number],
        )
        return attended.reshape(lanes, 1, -1)

    where = (slot[:, None], state.length[:, None])
    x = decoder.through_blocks(state.cache, state.token[:, None], where, attend)
    assert x is not None  # `attend` never ends it here
    logits = decoder.logits(x[:, -1])
    last_draw = state.uniform.shape[1] - 1
    place = state.count[:, None].clamp(max=last_draw)
    token = draw(logits, state.uniform.gather(1, place)[:, 0])
    going = state.active.long()
    state.count += going
    state.length += going
    state.token.copy_(token)
    state.active &= ~state.ends(token) & (state.count <= last_draw)

"""What every lane is doing: rows, the slots of the cache that hold their past, what they drew.

Shapes and places of all tensors are fixed for as long as a decoding lasts. Knows nothing about
how a token comes about.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from undertow.engine.attention import STRETCH
from undertow.engine.graphs import moved
from undertow.engine.layers import Cache
from undertow.models.blocks import blocks
from undertow.models.families import layout_of_config

LANES_TO_A_GROUP = 8  # prompts are read in groups of an eighth of the lanes,
MOST_IN_A_GROUP = 32  # and no more than this
STEP = 32  # lanes, where memory does not hold as many as were asked for
PROMPT_STEP = 64  # prompts are padded to a multiple of this before they are read


class Row(NamedTuple):
    """A prompt to continue; uniform: [max_new_tokens] numbers that the draws are made with.

    subject: whose row it is, where several subjects share the batch.
    """

    ids: list[int]
    uniform: Tensor
    subject: int = 0


class Finished(NamedTuple):
    """`tokens` continue row `number`; the stop token, where one was drawn, is the last."""

    number: int
    tokens: list[int]


def lanes_that_fit(
    model: PreTrainedModel, longest: int, new: int, most: int, subjects: int = 1
) -> int:
    """How many lanes of each subject, from 1 to `most`, the free memory of the device holds.

    Fewer than `most` in steps: rounding goes by the lanes, and the free memory of two runs differs
    by what each has loaded before.
    """
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
    if layout_of_config(model.config).attention_cap is not None:
        # Scores of a stretch of queries, a few copies of them in float32.
        reading += 4 * 4 * model.config.num_attention_heads * STRETCH * entries

    def needed(lanes: int) -> int:
        group = subjects * _group(lanes)
        every = subjects * lanes
        return (every + group + 1) * slot + every * drawing + group * reading

    fewer = (lanes for lanes in range(most - 1, 1, -1) if lanes < STEP or lanes % STEP == 0)
    return next((lanes for lanes in (most, *fewer) if needed(lanes) < 0.9 * free), 1)


def _group(lanes: int) -> int:
    """How many prompts of a subject are read together: few cost more each, many more memory."""
    return min(lanes, MOST_IN_A_GROUP, max(2, lanes // LANES_TO_A_GROUP))


def _cache_shape(model: PreTrainedModel, longest: int, new: int) -> tuple[int, int, int]:
    """(heads, head size, entries) of one slot in one block's keys."""
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    padded = -(-longest // PROMPT_STEP) * PROMPT_STEP
    return config.num_key_value_heads, size, max(padded, longest + new)


class Taken(NamedTuple):
    """A row whose prompt lies in a slot of the cache, and its tokens as far as the host knows."""

    slot: int
    number: int
    row: Row
    tokens: list[int]


class Sent(NamedTuple):
    """A step's tokens [lanes], on the host once `arrived`, and whose they are."""

    tokens: Tensor
    seated: list[Taken | None]
    arrived: Any


class Lanes:
    """The cache, and what every lane is doing; all tensors keep their place for the graph.

    There is a group of slots more than lanes, where prompts wait for a lane, and one more,
    `spare`, for what is computed along without a row. Each subject has as many lanes, side by
    side, and as many prompts of a group.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        lanes: int,
        longest: int,
        new: int,
        stops: Collection[int],
        subjects: int,
    ) -> None:
        device = model.device
        heads, size, self.entries = _cache_shape(model, longest, new)
        self.group = _group(lanes)  # of each subject
        self._lanes = lanes
        lanes *= subjects
        self.spare = lanes + self.group * subjects
        shape = (self.spare + 1, heads, self.entries, size)
        keys, values = (
            [torch.zeros(shape, device=device, dtype=model.dtype) for _ in blocks(model)]
            for _ in range(2)
        )
        self.cache = Cache(keys, values)
        self._stops = frozenset(stops)
        self._stop_ids = torch.tensor(sorted(stops), dtype=torch.long, device=device)
        self.slot, self.token, self.length, self.count = (
            torch.zeros(lanes, dtype=torch.long, device=device) for _ in range(4)
        )
        self.active = torch.zeros(lanes, dtype=torch.bool, device=device)
        self.uniform = torch.zeros(lanes, new, device=device)
        self.free = [  # by subject
            list(range(start, start + self._lanes)) for start in range(0, lanes, self._lanes)
        ]
        self.free_slots = list(range(self.spare))
        self.seated: list[Taken | None] = [None] * lanes  # by lane

    @property
    def idle(self) -> bool:
        return all(len(free) == self._lanes for free in self.free)

    def seat(self, ready: Sequence[deque[Taken]]) -> None:
        """Put each subject's rows into its free lanes; a row's first step takes its prompt's last
        token."""
        taken: list[Taken] = []
        lanes: list[int] = []
        for own, free in zip(ready, self.free, strict=True):
            while own and free:
                taken.append(own.popleft())
                lanes.append(free.pop())
        if not taken:
            return
        device = self.token.device
        numbers = [
            (lane, it.slot, it.row.ids[-1], len(it.row.ids) - 1)
            for lane, it in zip(lanes, taken, strict=True)
        ]
        at, slot, token, length = moved(torch.tensor(numbers), device).unbind(1)
        self.slot[at], self.token[at], self.length[at] = slot, token, length
        self.uniform[at] = moved(torch.stack([it.row.uniform for it in taken]), device)
        self.count.index_fill_(0, at, 0)
        self.active.index_fill_(0, at, True)
        for lane, it in zip(lanes, taken, strict=True):
            self.seated[lane] = it

    def send(self) -> Sent:
        """The newest tokens, on their way to the host."""
        if self.token.device.type != "cuda":
            return Sent(self.token.clone(), list(self.seated), None)
        tokens = torch.empty(len(self.token), dtype=torch.long, pin_memory=True)
        tokens.copy_(self.token, non_blocking=True)
        event: Any = torch.cuda.Event
        arrived = event()
        arrived.record()
        return Sent(tokens, list(self.seated), arrived)

    def ends(self, token: Tensor) -> Tensor:
        """[lanes] whether a lane's token [lanes] ends its row."""
        return (token[:, None] == self._stop_ids).any(dim=1)

    def receive(self, sent: Sent) -> list[Finished]:
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
            if token in self._stops or len(it.tokens) == most:
                self.seated[lane] = None
                self.free[lane // self._lanes].append(lane)
                self.free_slots.append(it.slot)
                over.append(Finished(it.number, it.tokens))
        return over

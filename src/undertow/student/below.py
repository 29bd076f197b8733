"""The blocks below the lowest adapter: what they make of a row is the base's, and never changes.

Each row goes through them once for all epochs, and what came of it is kept. For rows that are
padded, as TRL's trainer sees them on a CPU; a GPU is faster than its memory there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from undertow.models.blocks import blocks
from undertow.student.teaching import Teaching

MOST_BYTES = 2**30  # of what is kept; rows beyond it go through all blocks in every epoch
DROPOUTS = ("attention_dropout", "resid_pdrop", "embd_pdrop")


@contextmanager
def read_once(model: PreTrainedModel, teaching: Teaching) -> Iterator[None]:
    """Within it, passes of padded rows begin at the lowest block with an adapter, where all below
    is the same in every step: on a CPU, without dropout, and where training shifts no block there.

    The model is as it was when the block ends, also after an exception.
    """
    first = teaching.settings.lora.adapted_from
    drops = any(getattr(model.config, name, 0) for name in DROPOUTS)
    shifts = any(block < first for block in (*teaching.offset, *teaching.ablated))
    if first == 0 or drops or shifts or model.device.type != "cpu":
        yield
        return
    below = _Below(model, first)
    decoder: Any = model.model
    hook = decoder.register_forward_pre_hook(below.take, with_kwargs=True)
    layers = blocks(model)
    try:
        for number, block in enumerate(layers):
            block.forward = below.in_place_of(number, block.forward)
        yield
    finally:
        hook.remove()
        for block in layers:
            block.__dict__.pop("forward", None)


class _Below:
    """Hands block `first` what is kept of a batch's rows; reads rows that are not kept yet."""

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        self._decoder: Any = model.model
        self._first = first
        self._kept: dict[tuple[int, ...], Tensor] = {}  # by a row's token ids: [tokens, hidden]
        self._bytes = 0
        self._reading = False
        self._states: Tensor | None = None  # [rows, width, hidden]: what block `first` is given

    def take(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        """Before a pass of the decoder: have ready what its first adapted block takes."""
        if self._reading:
            return
        ids, mask = named["input_ids"], named["attention_mask"].bool()
        rows = [tuple(row[seen].tolist()) for row, seen in zip(ids, mask, strict=True)]
        new = [number for number, row in enumerate(rows) if row not in self._kept]
        fresh = dict(zip(new, self._read(ids[new], mask[new]), strict=True)) if new else {}
        states = [
            fresh[number] if number in fresh else self._kept[row] for number, row in enumerate(rows)
        ]
        whole = states[0].new_zeros(*ids.shape, states[0].shape[-1])
        for place, (seen, own) in enumerate(zip(mask, states, strict=True)):
            whole[place, seen] = own
        for number, own in fresh.items():
            self._keep(rows[number], own)
        self._states = whole

    def in_place_of(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The block's forward, which is left out below `first`; while reading, from there on."""

        def run(hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
            below = number < self._first
            if self._reading and number == self._first:
                self._states = hidden_states
            if below != self._reading:
                return hidden_states
            if number == self._first:
                hidden_states = self._states if self._states is not None else hidden_states
            return forward(hidden_states, *arguments, **named)

        return run

    @torch.no_grad()
    def _read(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        self._reading = True
        try:
            self._decoder(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        finally:
            self._reading = False
        assert self._states is not None  # block `first` has been passed
        return [row[seen].clone() for row, seen in zip(self._states, mask, strict=True)]

    def _keep(self, row: tuple[int, ...], states: Tensor) -> None:
        size = states.numel() * states.element_size()
        if row not in self._kept and self._bytes + size <= MOST_BYTES:
            self._kept[row] = states
            self._bytes += size

"""The arithmetic of a decoder block of any kind, over weights that stay the model's own.

Knows hidden states and a cache to write to; knows nothing about rows, lanes or tokens to draw.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from undertow.engine.joined import Projections, together
from undertow.models.block_kind import DOWN, OUTPUT, BlockKind, block_kinds, rms_norm, rotated
from undertow.models.blocks import blocks, for_rows, vector_behind
from undertow.models.families import FamilyLayout
from undertow.models.fused import Fused, fused

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor | None]
"""(block, query, key, value [rows, length, heads, size]) -> what its output projection takes;
None ends there."""


class Cache(NamedTuple):
    """Keys and values by block, each [slots, shared heads, entries, size]."""

    keys: list[Tensor]
    values: list[Tensor]


class Norm(NamedTuple):
    """See rms_norm."""

    weight: Tensor
    epsilon: float
    adds_one: bool


class QueryKeyNorm(NamedTuple):
    """Norms behind the projections; whole: over all heads together, else over each."""

    query: Norm
    key: Norm
    whole: bool


class Layer:
    """A decoder block's weights, with projections of one input done in one product."""

    def __init__(self, block: Any, kind: BlockKind) -> None:
        self.kind = kind

        def norm_of(name: str | None, parent: Any = block) -> Norm | None:
            if name is None:
                return None
            return Norm(getattr(parent, name).weight, kind.epsilon, kind.norm_adds_one)

        self.before_attention, self.after_attention, self.before_mlp, self.after_mlp = map(
            norm_of, kind.norms
        )
        has_norm = kind.query_key_norm != "none"
        query, key = (
            norm_of(name if has_norm else None, block.self_attn) for name in ("q_norm", "k_norm")
        )
        self.query_key_norm = (
            QueryKeyNorm(query, key, kind.query_key_norm == "whole") if query and key else None
        )
        query_key_value, _, gate_up, _ = kind.groups
        inputs = together(*(block.get_submodule(name) for name in query_key_value))
        width = block.get_submodule(OUTPUT).in_features
        self.query_key_value = _apart(inputs, width) if kind.joined else inputs
        inputs = together(*(block.get_submodule(name) for name in gate_up))
        self.gate_up = _halves(inputs) if kind.joined else inputs
        self.output = together(block.get_submodule(OUTPUT))
        self.down = together(block.get_submodule(DOWN))
        self.gated = gated(kind.activation)
        self.added = vector_behind(block)


def _apart(projections: Projections, width: int) -> Projections:
    """Query, key and value, out of one projection whose first `width` numbers are the query."""

    def parts(x: Tensor) -> Sequence[Tensor]:
        (whole,) = projections(x)
        shared = (whole.shape[-1] - width) // 2
        return torch.split(whole, [width, shared, shared], dim=-1)

    return parts


def _halves(projections: Projections) -> Projections:
    return lambda x: projections(x)[0].chunk(2, dim=-1)


class Decoder:
    """A model's blocks, embeddings and output layer; tables: rotary, by name [2, entries, size].

    entries: how many places the cache has; the last ones, from `longest` on, are never read, and
    get no positions of their own: some tables change with the highest position that is asked for.
    """

    def __init__(
        self, model: PreTrainedModel, layout: FamilyLayout, longest: int, entries: int
    ) -> None:
        whole: Any = model
        kinds = block_kinds(model.config, layout)
        self._model, self._layout = whole, layout
        self.layers = [Layer(*pair) for pair in zip(blocks(model), kinds, strict=True)]
        last = kinds[-1]
        self._norm = Norm(whole.model.norm.weight, last.epsilon, last.norm_adds_one)
        self._tables: Mapping[str | None, Tensor] = {}
        places = torch.arange(entries, device=model.device).clamp(max=longest - 1)[None]
        like = torch.empty(0, device=model.device, dtype=model.dtype)
        for kind in dict.fromkeys(layout.rope_kinds):
            named = {} if kind is None else {"layer_type": kind}
            found = whole.model.rotary_emb(like, position_ids=places, **named)
            self._tables[kind] = torch.cat(found)

    def through_blocks(
        self, cache: Cache, ids: Tensor, where: tuple[Tensor, Tensor], attend: Attend
    ) -> Tensor | None:
        """The last norm's output [rows, length, hidden]; keeps keys and values.

        where: slots and places of ids in the cache, each broadcastable to ids [rows, length].
        None where `attend` ended it.
        """
        hidden: Tensor = self._model.model.embed_tokens(ids)
        if self._layout.embedding_multiplier != 1:
            hidden = hidden * self._layout.embedding_multiplier
        turns = {name: table[:, where[1]] for name, table in self._tables.items()}
        first = self.layers[0].before_attention
        x = hidden if first is None else norm(hidden, first)
        following = [layer.before_attention for layer in self.layers[1:]] + [self._norm]
        for number, (layer, next_norm) in enumerate(zip(self.layers, following, strict=True)):
            kind = layer.kind
            multiplier = kind.residual_multiplier
            turn = turns[kind.rope_kind] if kind.rotates else None
            query, key, value = layer.query_key_value(x)
            query, key, value = normed_and_kept(
                query,
                key,
                value,
                kind.head_size,
                layer.query_key_norm,
                turn,
                cache.keys[number],
                cache.values[number],
                where,
            )
            attended = attend(number, query, key, value)
            if attended is None:
                return None
            (output,) = layer.output(attended)
            hidden, x = joins(
                hidden, output, layer.after_attention, multiplier, None, layer.before_mlp
            )
            (output,) = layer.down(layer.gated(*layer.gate_up(x)))
            added = None if layer.added is None else for_rows(layer.added, len(hidden))
            hidden, x = joins(hidden, output, layer.after_mlp, multiplier, added, next_norm)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """[rows, vocabulary] from the last norm's output [rows, hidden]."""
        found: Tensor = self._model.lm_head(x)
        layout = self._layout
        if layout.logit_divisor == 1 and layout.logit_cap is None:
            return found
        return finished(found, layout.logit_divisor, layout.logit_cap)


@fused(hidden=(-3, -2))
def norm(hidden: Tensor, by: Norm) -> Tensor:
    return rms_norm(hidden, *by)


@fused(hidden=(-3, -2), update=(-3, -2), added=(-3,))
def joins(
    hidden: Tensor,
    update: Tensor,
    after: Norm | None,
    multiplier: float,
    added: Tensor | None,
    before: Norm | None,
) -> tuple[Tensor, Tensor]:
    """The stream with a branch's output on it, and what the next branch takes.

    after: of the branch's output; added: [hidden] or [rows, 1, hidden], on the stream; before: of
    the next branch.
    """
    if after is not None:
        update = rms_norm(update, *after)
    hidden = hidden + (update if multiplier == 1 else update * multiplier)
    if added is not None:
        hidden = hidden + added
    return hidden, hidden if before is None else rms_norm(hidden, *before)


@cache
def gated(activation: str) -> Fused[[Tensor, Tensor], Tensor]:
    """(gate, up) -> activation(gate) x up."""
    act: Any = ACT2FN[activation]

    @fused(gate=(-3, -2), up=(-3, -2))
    def product(gate: Tensor, up: Tensor) -> Tensor:
        activated: Tensor = act(gate)
        return activated * up

    return product


@fused(logits=(-2,))
def finished(logits: Tensor, divisor: float, cap: float | None) -> Tensor:
    """Logits as the model's own forward pass leaves them."""
    logits = logits / divisor
    return logits if cap is None else torch.tanh(logits / cap) * cap


@fused(
    query=(-3, -2),
    key=(-3, -2),
    value=(-3, -2),
    turn=(-3, -2),
    keys=(-4, -2),
    values=(-4, -2),
    where=(-2, -1),
)
def normed_and_kept(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    size: int,
    norms: QueryKeyNorm | None,
    turn: Tensor | None,
    keys: Tensor,
    values: Tensor,
    where: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The projections by heads, normed and turned; key and value go to where = (slots, places).

    query, key, value: [rows, length, heads x size]; turn: [2, rows, length, rotary size].
    """
    if norms is not None and norms.whole:
        query, key = rms_norm(query, *norms.query), rms_norm(key, *norms.key)
    query, key, value = (part.view(*part.shape[:2], -1, size) for part in (query, key, value))
    if norms is not None and not norms.whole:
        query, key = rms_norm(query, *norms.query), rms_norm(key, *norms.key)
    if turn is not None:
        query, key = rotated(query, turn[0], turn[1]), rotated(key, turn[0], turn[1])
    slots, places = where
    keys[slots, :, places] = key
    values[slots, :, places] = value
    return query, key, value

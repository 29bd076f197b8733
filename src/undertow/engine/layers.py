"""The arithmetic of a decoder block of Llama's layout, over weights that stay the model's own.

Knows hidden states and a cache to write to; knows nothing about rows, lanes or tokens to draw.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from undertow.engine.joined import together
from undertow.models.fused import fused


class Cache(NamedTuple):
    """Keys and values by block, each [slots, shared heads, entries, size]."""

    keys: list[Tensor]
    values: list[Tensor]


class Layer:
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


def through_blocks(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    cache: Cache,
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
    for number, layer in enumerate(layers):
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
            query, key, value, turn, cache.keys[number], cache.values[number], where
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

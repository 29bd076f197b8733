"""Attention as the engine needs it: of prompts, and of one new token per row over its own past.

On a GPU the latter is a Triton kernel: SDPA with a mask reads the whole cache, and expands heads
that share keys. On a CPU, and as the reference of the kernel, plain PyTorch.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from undertow.models.fused import fused

STRETCH = 128  # queries of a prompt whose capped scores stand in memory together


class Rule(NamedTuple):
    """How queries look at keys: softmax of c tanh(scale q k / c), or of scale q k without a cap.

    window: how many tokens back, itself included; None is all.
    """

    scale: float
    window: int | None = None
    cap: float | None = None


def decode_attention(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, rule: Rule
) -> Tensor:
    """[rows, heads, size]: attention over the first `lengths` entries of each row, or as many of
    the last of them as the window holds.

    query: [rows, heads, size]; keys, values: [slots, shared heads, longest, size], contiguous;
    slots: [rows], where a row's past is; lengths: [rows], at least 1. Query heads that share
    keys are neighbours (grouped-query attention, Ainslie et al. 2023).
    """
    if query.device.type == "cuda":
        from undertow.engine.attention_kernel import attend_decode  # Triton comes with CUDA builds

        attended: Tensor = attend_decode(query, keys, values, slots, lengths, *rule)
        return attended
    return reference(query, keys, values, slots, lengths, rule)


def reference(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, rule: Rule
) -> Tensor:
    """The same in a few lines, reading everything."""
    place = torch.arange(keys.shape[2], device=query.device)
    seen = place < lengths[:, None]
    if rule.window is not None:
        seen &= place >= lengths[:, None] - rule.window
    attended = _masked(query[:, :, None], keys[slots], values[slots], seen[:, None, None], rule)
    return attended[:, :, 0]


def prompt_attention(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """[rows, heads, length, size]: every token over those before it and itself.

    query: [rows, heads, length, size]; key, value: with as many heads, or fewer that are shared.
    """
    length = query.shape[2]
    window = length if rule.window is None else min(rule.window, length)
    if rule.cap is None and window == length:
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            scale=rule.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    if rule.cap is None:
        return _masked(query, key, value, seen, rule)
    parts = []
    for start in range(0, length, STRETCH):
        end = min(start + STRETCH, length)
        part, mask = query[:, :, start:end], seen[start:end, :end]
        parts.append(_masked(part, key[:, :, :end], value[:, :, :end], mask, rule))
    return torch.cat(parts, dim=2)


def _masked(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, rule: Rule) -> Tensor:
    """Attention to what is `seen`, broadcastable to [rows, heads, queries, keys]."""
    # Shared heads are spread out: with a mask PyTorch has no fast function that shares them.
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if rule.cap is None:
        return functional.scaled_dot_product_attention(query, key, value, seen, scale=rule.scale)
    return _capped_shares(query @ key.transpose(2, 3), seen, rule.scale, rule.cap) @ value


@fused(scores=(-4, -2, -1), seen=(-2, -1))
def _capped_shares(scores: Tensor, seen: Tensor, scale: float, cap: float) -> Tensor:
    capped = torch.tanh(scores * scale / cap) * cap
    return capped.masked_fill(~seen, -torch.inf).softmax(-1, dtype=torch.float32).to(scores.dtype)

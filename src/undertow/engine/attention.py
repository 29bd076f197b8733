"""Attention of one new token per row over that row's own past, and no more of the cache.

On a GPU a Triton kernel: SDPA with a mask reads the whole cache, and expands heads that share
keys. On a CPU, and as the reference of the kernel, plain PyTorch.
"""

import torch
from torch import Tensor


def decode_attention(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor
) -> Tensor:
    """[rows, heads, size]: softmax(q k / sqrt(size)) v over each row's first `lengths` entries.

    query: [rows, heads, size]; keys, values: [slots, shared heads, longest, size], contiguous;
    slots: [rows], where a row's past is; lengths: [rows], at least 1. Query heads that share
    keys are neighbours (grouped-query attention, Ainslie et al. 2023).
    """
    if query.device.type == "cuda":
        from undertow.engine.attention_kernel import attend_decode  # Triton comes with CUDA builds

        attended: Tensor = attend_decode(query, keys, values, slots, lengths)
        return attended
    return reference(query, keys, values, slots, lengths)


def reference(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor
) -> Tensor:
    """The same in a few lines, reading everything."""
    seen = torch.arange(keys.shape[2], device=query.device) < lengths[:, None]
    attended = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None],
        keys[slots],
        values[slots],
        attn_mask=seen[:, None, None],
        enable_gqa=True,
    )
    return attended[:, :, 0]

# mypy: ignore-errors
"""The Triton kernel behind decode_attention: flash attention (Dao et al. 2022) of one token.

One program per row and shared head walks over that row's past, so it reads nothing else. It
takes the query heads that share keys together, as the rows of one product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # cache entries read at a time


@triton.jit
def attend(
    query,
    keys,
    values,
    slots,
    lengths,
    out,
    scale,
    cap,
    window,
    slot_stride,
    head_stride,
    GROUP: tl.constexpr,  # noqa: N803
    PADDED: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
    CAPPED: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    shared = tl.program_id(1)
    length = tl.load(lengths + row)
    member = tl.arange(0, PADDED)
    column = tl.arange(0, WIDTH)
    at = ((row * tl.num_programs(1) + shared) * GROUP + member)[:, None] * SIZE + column
    real = (member < GROUP)[:, None] & (column < SIZE)
    q = tl.load(query + at, mask=real, other=0.0)
    past = tl.load(slots + row).to(tl.int64) * slot_stride + shared * head_stride
    top = tl.full([PADDED], -float("inf"), tl.float32)
    total = tl.zeros([PADDED], tl.float32)
    mixed = tl.zeros([PADDED, WIDTH], tl.float32)
    for start in range(tl.maximum(length - window, 0), length, BLOCK):
        position = start + tl.arange(0, BLOCK)
        inside = position < length
        cell = past + position[:, None] * SIZE + column
        known = inside[:, None] & (column < SIZE)
        k = tl.load(keys + cell, mask=known, other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if CAPPED:
            score = cap * (2 * tl.sigmoid(2 * score / cap) - 1)  # cap x tanh(score / cap)
        score = tl.where(inside, score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        share = tl.exp(score - higher[:, None])
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(share, 1)
        v = tl.load(values + cell, mask=known, other=0.0)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(share.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    tl.store(out + at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=real)


def attend_decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """See decode_attention; all tensors on one CUDA device."""
    rows, heads, size = query.shape
    shared, longest = keys.shape[1:3]
    width = max(16, triton.next_power_of_2(size))
    out = torch.empty_like(query)
    attend[(rows, shared)](
        query,
        keys,
        values,
        slots,
        lengths,
        out,
        scale,
        cap or 1.0,
        min(window or longest, longest),
        keys.stride(0),
        keys.stride(1),
        GROUP=heads // shared,
        PADDED=max(16, triton.next_power_of_2(heads // shared)),
        SIZE=size,
        WIDTH=width,
        # Two stages of keys and values of wide heads would not fit into a block's memory.
        BLOCK=BLOCK if width <= 128 else BLOCK // 2,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        CAPPED=cap is not None,
        num_warps=4,
        num_stages=2,
    )
    return out

"""Training rows end to end in one sequence, so that no product is spent on padding.

Each row attends to itself alone, as far back as its family's window reaches, and counts its own
positions, so the loss is that of padded rows. Families that cap their attention (`packs`) stay
padded: no attention here can. On a CUDA device in half precision the attention is PyTorch's
variable-length flash attention; elsewhere the same with a mask.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from undertow.models.families import layout_of_config

ATTENTION = "undertow_packed"
LENGTH_STEP = 256  # sequences are padded to a multiple of it, so that few shapes are compiled


class Packed(NamedTuple):
    """One sequence of several rows and, at its end, padding as a row of its own.

    ids, positions: [1, length]; bounds: [rows + 2] where each row begins, and the end; targets:
    the learned tokens; predictors: the places whose outputs predict them; longest: row length.
    """

    ids: Tensor
    positions: Tensor
    bounds: Tensor
    targets: Tensor
    predictors: Tensor
    longest: int


def packs(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be taken over packed rows."""
    return layout_of_config(model.config).attention_cap is None


def pack(ids: Tensor, mask: Tensor, labels: Tensor, ignored: int) -> Packed:
    """Take the padding out of ids, mask and labels, each [rows, width]; any side of padding.

    A row's first token is never a target: nothing comes before it.
    """
    real = mask.bool()
    lengths = real.sum(1)
    flat, wanted = ids[real], labels[real]
    rest = -len(flat) % LENGTH_STEP
    bounds = pad(lengths.cumsum(0), (1, 0))
    wanted[bounds[:-1]] = ignored
    places = torch.arange(len(flat), device=ids.device)
    positions = places - bounds[:-1].repeat_interleave(lengths)
    learned = (wanted != ignored).nonzero()[:, 0]
    return Packed(
        ids=pad(flat, (0, rest))[None],
        positions=torch.cat([positions, torch.arange(rest, device=ids.device)])[None],
        bounds=torch.cat([bounds, bounds[-1:] + rest]).int(),
        targets=wanted[learned],
        predictors=learned - 1,
        longest=max(int(lengths.max()), rest),
    )


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    bounds: Tensor | None = None,
    longest: int = 0,
    **_: Any,
) -> tuple[Tensor, None]:
    """[1, length, heads, size] from query [1, heads, length, size]; transformers' interface.

    sliding_window: how many tokens back a token looks, itself included; None is all. Without
    `bounds` plain causal attention by the mask, as for rows that are not packed.
    """
    if bounds is None:
        attended = scaled_dot_product_attention(
            query,
            key,
            value,
            attention_mask,
            is_causal=attention_mask is None,
            scale=scaling,
            enable_gqa=True,
        )
        return attended.transpose(1, 2).contiguous(), None
    if query.device.type == "cuda" and query.dtype != torch.float32:
        attended = _variable_length(query, key, value, scaling, bounds, longest, sliding_window)
        return attended[None], None
    row = torch.searchsorted(
        bounds[1:].long(), torch.arange(query.shape[2], device=bounds.device), right=True
    )
    mask = (row[:, None] == row).tril()
    if sliding_window is not None:
        mask = mask.triu(1 - sliding_window)
    attended = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
    return attended.transpose(1, 2).contiguous(), None


def _variable_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    bounds: Tensor,
    longest: int,
    window: int | None,
) -> Tensor:
    """[length, heads, size]; causal within each row (Dao 2023)."""
    groups = query.shape[1] // key.shape[1]
    attended: Any = varlen_attn(
        query[0].transpose(0, 1),
        key[0].repeat_interleave(groups, dim=0).transpose(0, 1),
        value[0].repeat_interleave(groups, dim=0).transpose(0, 1),
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
    )
    return cast(Tensor, attended)


AttentionInterface.register(ATTENTION, packed_attention)

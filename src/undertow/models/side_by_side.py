"""Weights of layers with one input, as one weight that shares their memory."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def in_one(parts: Sequence[nn.Parameter]) -> Tensor:
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

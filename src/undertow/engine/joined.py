"""Linear layers of one input as one product, over weights that stay the model's own.

A LoRA adapter on them becomes two more products, whatever it joins, and so do the adapters of
several subjects. Layers that are anything else (4-bit, DoRA) are called as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from undertow.models.side_by_side import in_one
from undertow.models.stacked import Additions, StackedLinear, with_additions

Projections = Callable[[Tensor], Sequence[Tensor]]
"""x [rows, length, width] -> each projection of it"""


def together(*projections: nn.Module) -> Projections:
    """All projections of an input: one product for linear layers, two more for their adapter."""
    linear: list[Any] = [
        layer.base_layer if type(layer) in (LoraLinear, StackedLinear) else layer
        for layer in projections
    ]
    several = any(type(layer) is StackedLinear for layer in projections)
    added = [] if several else [_low_rank(layer) for layer in projections]
    if any(type(layer) is not nn.Linear for layer in linear) or None in added:
        return lambda x: [projection(x) for projection in projections]
    widths = [layer.out_features for layer in linear]
    weight = in_one([layer.weight for layer in linear])
    bias = None if linear[0].bias is None else in_one([layer.bias for layer in linear])
    if several:
        own = _side_by_side(projections, widths)
        return lambda x: torch.split(
            with_additions(functional.linear(x, weight, bias), x, own), widths, dim=-1
        )
    if linear == list(projections):
        return lambda x: torch.split(functional.linear(x, weight, bias), widths, dim=-1)
    diagonal: Any = torch.block_diag
    down = torch.cat([part.down for part in added if part]).to(weight.dtype)
    up = diagonal(*(part.up for part in added if part)).to(weight.dtype).t()

    def with_adapter(x: Tensor) -> Sequence[Tensor]:
        plain = functional.linear(x, weight, bias)
        low = functional.linear(x, down)
        whole = torch.addmm(plain.flatten(0, 1), low.flatten(0, 1), up)
        return torch.split(whole.view_as(plain), widths, dim=-1)

    return with_adapter


def _side_by_side(projections: Sequence[Any], widths: Sequence[int]) -> Additions:
    """What the subjects add to all of these layers, as to one whose outputs are theirs in a row."""
    parts = [layer.added if type(layer) is StackedLinear else Additions() for layer in projections]
    downs = [part.down for part in parts if part.down is not None]
    ups: list[Tensor] = []
    constants: list[Tensor] = []
    before = 0
    for part, width in zip(parts, widths, strict=True):
        after = sum(widths) - before - width
        if part.up is not None:
            ups.append(functional.pad(part.up, (0, 0, before, after)))
        if part.constant is not None:
            constants.append(functional.pad(part.constant, (before, after)))
        before += width
    return Additions(
        torch.cat(downs, dim=1) if downs else None,
        torch.cat(ups, dim=2) if ups else None,
        torch.stack(constants).sum(0) if constants else None,
    )


class _LowRank(NamedTuple):
    """What a LoRA layer adds to W x is up down x (Hu et al. 2021); its scale is in up."""

    down: Tensor
    up: Tensor


def _low_rank(layer: Any) -> _LowRank | None:
    """Of rank 0 for a layer without an adapter; None for one that does anything else."""
    if type(layer) is not LoraLinear:
        if type(layer) is not nn.Linear:
            return None
        weight = layer.weight.detach()
        return _LowRank(weight[:0], weight[:, :0])
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.merged or layer.disable_adapters or layer.lora_variant or len(names) != 1:
        return None
    (name,) = names
    down, up = layer.lora_A[name], layer.lora_B[name]
    if up.bias is not None:
        return None
    return _LowRank(down.weight.detach(), up.weight.detach() * layer.scaling[name])

"""The frozen base of a group: its blocks' weights by name, unpacked from NF4 where they are packed.

Packed weights are unpacked once for good where memory allows, and otherwise once forward and once
backward for all students of a step: what autograd would keep is the packed weight.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from undertow.models.side_by_side import in_one
from undertow.student.block import Adapted, joint


class _Unpacked(NamedTuple):
    """What autograd keeps in place of an unpacked weight: whose it is, and how it was viewed."""

    layers: Sequence[Any]
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any


class FrozenBase:
    """The weights of a model whose blocks `families` describes; keep: unpack NF4 for good.

    groups: every linear layer, those of one input together: their weights become one weight. The
    model keeps its own, which are then parts of it where they are plain. Of a group either all
    layers are packed or none.
    """

    def __init__(self, model: Any, groups: Sequence[Sequence[str]], *, keep: bool) -> None:
        self.embed: Any = model.model.embed_tokens
        self.rotary: Any = model.model.rotary_emb
        self.norm: Tensor = model.model.norm.weight.detach()
        self.head: Tensor = model.lm_head.weight.detach()
        self._dtype = model.dtype
        self._plain: list[dict[str, Tensor]] = []
        self._packed: list[dict[str, Sequence[Any]]] = []  # layers one below the other, by weight
        for block in model.model.layers:
            packed = {name: layer for name, layer in block.named_modules() if is_packed(layer)}
            plain = {
                name: weight.detach()
                for name, weight in block.named_parameters()
                if name.removesuffix(".weight") not in packed
            }
            if keep:
                plain |= {f"{name}.weight": self._unpack(layer) for name, layer in packed.items()}
                packed = {}
            for names in groups:
                _join(plain, block, names, "weight")
                _join(plain, block, names, "bias")
            self._plain.append(plain)
            self._packed.append(
                {
                    f"{joint(names)}.weight": [packed[name] for name in names]
                    for names in groups
                    if names[0] in packed
                }
            )

    def weights(self, number: int) -> dict[str, Tensor]:
        """The weights of a block, by name."""
        made = {name: self._whole(layers) for name, layers in self._packed[number].items()}
        return self._plain[number] | made

    @contextmanager
    def kept_packed(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The weights of a block while it runs; within it, autograd keeps packed ones packed.

        Only there, and for this block alone: where a weight was, an activation may be afterwards.
        """
        weights, packed = self.weights(number), self._packed[number]
        if not packed:
            yield weights
            return
        layers_at = {
            weights[name].untyped_storage().data_ptr(): layers for name, layers in packed.items()
        }

        def pack(tensor: Tensor) -> Tensor | _Unpacked:
            layers = layers_at.get(tensor.untyped_storage().data_ptr())
            if layers is None:
                return tensor
            return _Unpacked(layers, tensor.size(), tensor.stride(), tensor.storage_offset())

        with torch.autograd.graph.saved_tensors_hooks(pack, self._again):
            yield weights

    def _again(self, kept: Tensor | _Unpacked) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        return self._whole(kept.layers).as_strided(kept.size, kept.stride, kept.offset)

    def _whole(self, layers: Sequence[Any]) -> Tensor:
        weights = [self._unpack(layer) for layer in layers]
        return weights[0] if len(weights) == 1 else torch.cat(weights)

    def _unpack(self, layer: Any) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        with torch.no_grad():
            weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return weight.to(self._dtype)


def _join(plain: dict[str, Tensor], block: nn.Module, names: Sequence[str], kind: str) -> None:
    """Put a group's weights, or its biases, into one; `plain` then holds it by their joint name."""
    parts = [f"{name}.{kind}" for name in names if f"{name}.{kind}" in plain]
    if len(names) == 1 or not parts:
        return
    if len(parts) < len(names):
        raise ValueError(f"not all of {', '.join(names)} have a {kind}")
    own = dict(block.named_parameters())
    if all(plain[part].data_ptr() == own[part].data_ptr() for part in parts):
        whole = in_one([own[part] for part in parts])
    else:  # unpacked: nobody else holds them
        whole = torch.cat([plain[part] for part in parts])
    for part in parts:
        del plain[part]
    plain[f"{joint(names)}.{kind}"] = whole


def is_packed(layer: nn.Module) -> bool:
    """Whether this is a 4-bit linear layer (bitsandbytes), which need not be installed."""
    return type(layer).__name__ == "Linear4bit"


def packed_bytes(model: PreTrainedModel) -> int:
    """Memory that the packed weights would take unpacked."""
    return sum(
        layer.in_features * layer.out_features * model.dtype.itemsize
        for layer in model.modules()
        if is_packed(layer) and isinstance(layer, nn.Linear)
    )


def widths(model: Any) -> list[dict[str, Adapted]]:
    """The linear layers of each block, by name within it."""
    return [
        {
            name: Adapted(name, layer.in_features, layer.out_features)
            for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)
        }
        for block in model.model.layers
    ]

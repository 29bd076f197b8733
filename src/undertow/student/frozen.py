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

Parts = Sequence[Any]
"""What a weight is made of, one below the other: packed layers, and weights that are plain."""


class _Unpacked(NamedTuple):
    """What autograd keeps in place of an unpacked weight: which one, and how it was viewed."""

    parts: Parts
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any


class FrozenBase:
    """The weights of a model whose blocks `families` describes; keep: unpack NF4 for good.

    groups: every linear layer, those of one input together: their weights become one weight. The
    model keeps its own, which are then parts of it where they are plain.
    """

    def __init__(self, model: Any, groups: Sequence[Sequence[str]], *, keep: bool) -> None:
        self.embed: Any = model.model.embed_tokens
        self.rotary: Any = model.model.rotary_emb
        self.norm: Tensor = model.model.norm.weight.detach()
        self.head: Tensor = model.lm_head.weight.detach()
        self._dtype = model.dtype
        self._plain: list[dict[str, Tensor]] = []
        self._packed: list[dict[str, Parts]] = []
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
            made: dict[str, Parts] = {}
            for names in groups:
                if packed.keys().isdisjoint(names):
                    _join(plain, block, names, "weight")
                else:
                    made[f"{joint(names)}.weight"] = [
                        packed[name] if name in packed else plain.pop(f"{name}.weight")
                        for name in names
                    ]
                _join(plain, block, names, "bias")
            self._plain.append(plain)
            self._packed.append(made)
        self._live: dict[int, Parts] = {}  # by the storage of the weight that is made of them

    def weights(self, number: int) -> dict[str, Tensor]:
        """The weights of a block, by name."""
        found = dict(self._plain[number])
        for name, parts in self._packed[number].items():
            found[name] = self._whole(parts)
            self._live[found[name].untyped_storage().data_ptr()] = parts
        return found

    @contextmanager
    def kept_packed(self) -> Iterator[None]:
        """Within it, autograd keeps packed weights packed."""
        if not any(self._packed):
            yield
            return
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._again):
            yield
        self._live.clear()

    def _pack(self, tensor: Tensor) -> Tensor | _Unpacked:
        parts = self._live.get(tensor.untyped_storage().data_ptr())
        if parts is None:
            return tensor
        return _Unpacked(parts, tensor.size(), tensor.stride(), tensor.storage_offset())

    def _again(self, kept: Tensor | _Unpacked) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        return self._whole(kept.parts).as_strided(kept.size, kept.stride, kept.offset)

    def _whole(self, parts: Parts) -> Tensor:
        plain = [part if isinstance(part, Tensor) else self._unpack(part) for part in parts]
        return plain[0] if len(plain) == 1 else torch.cat(plain)

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

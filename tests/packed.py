"""Linear layers that are packed in four bits, by bitsandbytes or, without it, by a stand-in.

The stand-in for its layer keeps the weight as it is; unpacking then makes a copy, which is what
matters to those who keep packed weights packed.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn


class Linear4bit(nn.Linear):
    """By its name it is taken for bitsandbytes' own."""


def pack(within: nn.Module, name: str, device: str) -> None:
    """Put a packed layer in the place of a linear one."""
    layer: Any = getattr(within, name)
    if find_spec("bitsandbytes") is None:
        packed: Any = Linear4bit(layer.in_features, layer.out_features, bias=False)
        packed.weight = layer.weight
        packed.weight.quant_state = None
    else:
        import bitsandbytes as bnb

        packed = bnb.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=False, quant_type="nf4", device="meta"
        )
        packed.weight = bnb.nn.Params4bit(layer.weight.cpu(), requires_grad=False, quant_type="nf4")
    packed.bias = layer.bias
    setattr(within, name, packed.to(device))


def unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stand-in's weights unpacked where there is no bitsandbytes."""
    if find_spec("bitsandbytes") is not None:
        return
    for name in ("bitsandbytes", "bitsandbytes.functional"):
        module: Any = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.dequantize_4bit = _copied
        monkeypatch.setitem(sys.modules, name, module)


def _copied(weight: Tensor, _state: object) -> Tensor:
    return weight.clone()

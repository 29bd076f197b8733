"""How many rows are decoded at a time, where memory is what limits them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from undertow.engine.lanes import lanes_that_fit

MIB = 2**20


def lanes(monkeypatch: pytest.MonkeyPatch, free: int) -> int:
    """Of Llama-2-7B's shape, 256 rows asked for, on a device with so many bytes free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    )
    model: Any = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, config=config)
    return lanes_that_fit(model, 60, 256, most=256)


def test_lanes_that_memory_limits_are_a_step_and_a_little_memory_changes_none(monkeypatch):
    assert lanes(monkeypatch, 200_000 * MIB) == 256
    found = [lanes(monkeypatch, free * MIB) for free in range(40_000, 41_000, 50)]
    assert len(set(found)) <= 2 and all(count % 32 == 0 for count in found)
    assert 1 <= lanes(monkeypatch, 2_000 * MIB) < 32
    assert lanes(monkeypatch, 0) == 1

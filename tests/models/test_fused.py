"""How often a function is compiled; what it computes is tested where it is used."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from undertow.engine.layers import Norm, joins, normed_and_kept
from undertow.models.fused import Fused


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    made = CompileCounter()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=made))
    return made


def of_rows(rows: int, length: int, width: int) -> tuple[Tensor, Tensor]:
    """A joining of so many rows: the new stream, and what it is to be."""
    generator = torch.Generator().manual_seed(rows)
    hidden, update = (torch.randn(rows, length, width, generator=generator) for _ in range(2))
    by = Norm(torch.ones(width), 1e-6, False)
    every = (hidden, update, None, 1.0, None, by)
    own: Fused[..., tuple[Tensor, Tensor]] = joins
    return own.compiled(*every)[1], joins(*every)[1]


def test_one_compilation_serves_every_number_of_rows(counter: CompileCounter) -> None:
    vars(joins).pop("_compiled", None)
    for rows, length in ((192, 1), (24, 64), (300, 1), (32, 64), (7, 128), (500, 1)):
        for width in (8, 12, 8):
            found, expected = of_rows(rows, length, width)
            torch.testing.assert_close(found, expected)
    # Of each width: the steps of one token, and the prompts.
    assert counter.frame_count == 4
    del joins._compiled


def test_a_cache_of_any_size_is_written_by_one_compilation(counter: CompileCounter) -> None:
    vars(normed_and_kept).pop("_compiled", None)
    for rows, slots, entries in ((6, 9, 40), (5, 11, 48), (3, 4, 33)):
        query = torch.randn(rows, 1, 8)
        key, value = torch.randn(rows, 1, 4), torch.randn(rows, 1, 4)
        keys, values = torch.zeros(2, slots, 2, entries, 2)
        where = (torch.arange(rows)[:, None], torch.arange(rows)[:, None] + 20)
        turn = torch.randn(2, rows, 1, 2)
        normed_and_kept.compiled(query, key, value, 2, None, turn, keys, values, where)
        for row in range(rows):
            assert torch.equal(values[row, :, row + 20], value[row, 0].view(2, 2))
    assert counter.frame_count == 1
    del normed_and_kept._compiled

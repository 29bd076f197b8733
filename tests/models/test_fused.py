"""How often a function is compiled; what it computes is tested where it is used."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from undertow.engine.attention import _capped_shares
from undertow.engine.layers import Norm, gated, joins, normed_and_kept
from undertow.models.fused import fused


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts what is compiled; nothing of it stays."""
    made, parts = CompileCounter(), (joins, normed_and_kept, gated("silu"), _capped_shares)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=made))
    for part in parts:
        vars(part).pop("_compiled", None)
    torch._dynamo.reset()
    yield made
    for part in parts:
        vars(part).pop("_compiled", None)
    torch._dynamo.reset()


def test_one_compilation_serves_every_number_of_rows(counter: CompileCounter):
    for rows, length in ((192, 1), (24, 64), (300, 1), (32, 64), (7, 128), (500, 1)):
        for width in (8, 12, 8):
            hidden, update = torch.randn(2, rows, length, width)
            every = (hidden, update, None, 1.0, None, Norm(torch.ones(width), 1e-6, False))
            torch.testing.assert_close(joins.compiled(*every), joins(*every))
    # Of each width: the steps of one token, and the prompts.
    assert counter.frame_count == 4


def test_a_vector_behind_a_block_is_one_more_for_all_rows_and_one_for_each_row(
    counter: CompileCounter,
):
    by = Norm(torch.ones(8), 1e-6, False)
    for rows in (6, 9):
        for added in (None, torch.randn(8), torch.randn(rows, 1, 8)):
            hidden, update = torch.randn(2, rows, 1, 8)
            every = (hidden, update, None, 1.0, added, by)
            torch.testing.assert_close(joins.compiled(*every), joins(*every))
    assert counter.frame_count == 3


def test_halves_of_one_product_are_gated_by_one_compilation(counter: CompileCounter):
    for rows, length in ((5, 3), (4, 7), (9, 2)):
        halves = torch.randn(rows, length, 12).chunk(2, dim=-1)
        torch.testing.assert_close(gated("silu").compiled(*halves), gated("silu")(*halves))
    assert counter.frame_count == 1


def test_capped_attention_is_compiled_for_whole_prompts_and_for_stretches(counter: CompileCounter):
    for length, stretch in ((5, 5), (7, 7), (8, 3), (9, 4), (11, 3)):
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        for end in range(stretch, length + 1, stretch):  # as `prompt_attention` goes through it
            scores = torch.randn(2, 3, stretch, end)
            every = (scores, seen[end - stretch : end, :end], 0.5, 30.0)
            torch.testing.assert_close(_capped_shares.compiled(*every), _capped_shares(*every))
    # Of a longer prompt the mask is a part of a wider one.
    assert counter.frame_count == 2


def test_a_cache_of_any_size_is_written_by_one_compilation(counter: CompileCounter):
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


def test_a_name_that_the_function_does_not_take_is_an_error():
    with pytest.raises(ValueError, match="gated takes no gates"):

        @fused(gates=(-1,))
        def gated(gate: torch.Tensor) -> torch.Tensor:
            return gate

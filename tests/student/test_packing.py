"""Packed rows give the loss and the gradients of padded ones."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from families import KINDS, model_of
from undertow.student import packing

IGNORED = -100
LENGTHS = (5, 1, 9, 30)


def batch(left: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, mask and labels [rows, width] of rows of LENGTHS, learned from their third token on."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, length in enumerate(LENGTHS):
        places = slice(-length, None) if left else slice(length)
        mask[row, places] = 1
        labels[row, places][2:] = ids[row, places][2:]
    return ids, mask, labels


FAMILIES = [name for name in KINDS if name != "gemma2"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("left", [True, False])
def test_loss_and_gradients_are_those_of_padded_rows(name, left):
    """Windows of 16 tokens and rows of up to 30: shorter and longer ones."""
    model = model_of(name).requires_grad_(True)
    ids, mask, labels = batch(left)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    padded = cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )
    padded.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()

    model.set_attn_implementation(packing.ATTENTION)
    packed = packing.pack(ids, mask, labels, IGNORED)
    outputs = model(
        input_ids=packed.ids,
        position_ids=packed.positions,
        use_cache=False,
        logits_to_keep=packed.predictors,
        bounds=packed.bounds,
        longest=packed.longest,
    )
    loss = cross_entropy(outputs.logits[0], packed.targets, reduction="sum")
    loss.backward()
    torch.testing.assert_close(loss, padded)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-4, rtol=1e-4)


def test_what_caps_its_attention_is_not_packed():
    assert [name for name in KINDS if not packing.packs(model_of(name))] == ["gemma2"]


def test_a_row_s_first_token_is_no_target():
    """Its predictor would be the last token of the row before."""
    ids = torch.tensor([[7, 8], [9, 10]])
    packed = packing.pack(ids, torch.ones_like(ids), ids.clone(), IGNORED)
    assert packed.targets.tolist() == [8, 10]
    assert packed.predictors.tolist() == [0, 2]
    assert packed.ids.shape == (1, packing.LENGTH_STEP)
    assert packed.bounds.tolist() == [0, 2, 4, packing.LENGTH_STEP]
    assert packed.positions[0, :5].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention needs CUDA")
@pytest.mark.parametrize("window", [None, 16])
def test_variable_length_attention_is_the_masked_one(window):
    generator = torch.Generator("cuda").manual_seed(0)
    query = torch.randn(1, 4, 90, 64, device="cuda", generator=generator)
    key, value = torch.randn(2, 1, 2, 90, 64, device="cuda", generator=generator)
    bounds = torch.tensor([0, 5, 40, 90], dtype=torch.int32, device="cuda")
    given = {"attention_mask": None, "scaling": 0.125, "bounds": bounds, "longest": 50}
    given["sliding_window"] = window
    module = torch.nn.Module()
    exact, _ = packing.packed_attention(module, query, key, value, **given)
    half = [part.bfloat16() for part in (query, key, value)]
    found, _ = packing.packed_attention(module, *half, **given)
    assert (found.float() - exact).norm() / exact.norm() < 1e-2

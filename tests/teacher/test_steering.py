"""What steering must do, on hidden states of tiny random models."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from families import KINDS, model_of
from tiny import Family, tiny_model
from undertow.errors import UndertowError
from undertow.models.blocks import blocks
from undertow.teacher.steering import measure_shift, offsets, steer, steer_with_hooks

LAYER = 1
EVERY = pytest.mark.parametrize("name", KINDS)
ADDED = ("gemma2", "gemma3", "olmo2")
FORMS = pytest.mark.parametrize("form", [steer, steer_with_hooks], ids=["bias", "hook"])


@pytest.fixture(params=["llama2", "qwen2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    family: Family = request.param
    return tiny_model(family, 60)


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


@contextmanager
def recorded(model: PreTrainedModel) -> Iterator[list[list[Tensor]]]:
    """Each block's output, one tensor per forward."""
    seen: list[list[Tensor]] = [[] for _ in blocks(model)]
    handles = [
        block.register_forward_hook(lambda _m, _i, out, store=store: store.append(out.clone()))
        for block, store in zip(blocks(model), seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def states(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    with recorded(model) as seen:
        model(ids)
    return [outputs[0] for outputs in seen]


IDS = torch.arange(1, 11).reshape(2, 5)


@FORMS
def test_blocks_below_are_unchanged_and_the_block_itself_shifts_by_exactly_alpha_d(
    form, model, vectors
):
    plain = states(model, IDS)
    with form(model, offsets(vectors, [LAYER], -0.7)):
        steered = states(model, IDS)
    assert torch.equal(steered[0], plain[0])
    expected = (-0.7 * vectors[LAYER]).expand_as(plain[LAYER])
    torch.testing.assert_close(steered[LAYER] - plain[LAYER], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(steered[2], plain[2], atol=1e-3)


@FORMS
def test_several_blocks_are_steered_each_by_its_own_vector(form, model, vectors):
    plain = states(model, IDS)
    with form(model, offsets(vectors, [0], 2.0)):
        first = states(model, IDS)
    with form(model, offsets(vectors, [0, 2], 2.0)):
        both = states(model, IDS)
    torch.testing.assert_close(first[0] - plain[0], (2 * vectors[0]).expand_as(plain[0]))
    shift = (2 * vectors[2]).expand_as(plain[2])
    torch.testing.assert_close(both[2] - first[2], shift, atol=1e-5, rtol=0)


@FORMS
def test_every_decoded_token_is_steered_with_the_cache_on(form, model, vectors):
    """Decoding with a cache sees the states of one forward over the whole sequence."""
    with form(model, offsets(vectors, [LAYER], 0.9)):
        with recorded(model) as seen, torch.inference_mode():
            answer = model.generate(
                IDS, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None
            )
        decoded = torch.cat(seen[2], dim=1)
        whole = states(model, answer)[2]
    # The last token that was generated is never fed back, so it has no state.
    torch.testing.assert_close(decoded, whole[:, : decoded.shape[1]], atol=1e-4, rtol=1e-4)
    assert decoded.shape[1] == answer.shape[1] - 1
    plain = states(model, answer)[LAYER]
    with form(model, offsets(vectors, [LAYER], 0.9)):
        steered = states(model, answer)[LAYER]
    boundary = IDS.shape[1] - 1
    for position in (boundary - 1, boundary, boundary + 1):
        torch.testing.assert_close(
            steered[:, position] - plain[:, position],
            (0.9 * vectors[LAYER]).expand(2, -1),
            atol=1e-4,
            rtol=0,
        )


@FORMS
@torch.inference_mode()
def test_left_padding_changes_nothing(form, model, vectors):
    alone = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with form(model, offsets(vectors, [LAYER], 1.5)):
        single = model.generate(alone, attention_mask=torch.ones_like(alone), **options)
        batched = model.generate(padded, attention_mask=mask, **options)
    assert batched[0, 5:].tolist() == single[0, 3:].tolist()


@FORMS
def test_nothing_is_left_after_an_exception(form, model, vectors):
    plain = states(model, IDS)
    with (
        pytest.raises(torch.OutOfMemoryError),
        form(model, offsets(vectors, [0, LAYER], 3.0)),
    ):
        raise torch.OutOfMemoryError("as a GPU would")
    assert all(not block._forward_hooks for block in blocks(model))
    assert all(block.mlp.down_proj.bias is None for block in blocks(model))
    for before, after in zip(plain, states(model, IDS), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ADDED])
def test_the_bias_form_equals_the_hook_form(name, vectors):
    model = model_of(name)
    added = offsets(vectors, [0, LAYER], -1.25)
    with steer(model, added):
        bias = states(model, IDS)
    with steer_with_hooks(model, added):
        hook = states(model, IDS)
    for left, right in zip(bias, hook, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@EVERY
def test_every_family_s_block_moves_by_the_vector_itself(name, vectors):
    """Ratio and cosine 1 within 1e-4, and what lies below stays."""
    model = model_of(name)
    plain = states(model, IDS)
    with steer(model, offsets(vectors, [LAYER], 0.8)):
        shift = states(model, IDS)[LAYER] - plain[LAYER]
    added = (0.8 * vectors[LAYER]).expand_as(shift)
    torch.testing.assert_close(
        shift.norm(dim=-1) / added.norm(dim=-1), torch.ones(IDS.shape), atol=1e-4, rtol=0
    )
    cosine = torch.cosine_similarity(shift, added, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(IDS.shape), atol=1e-4, rtol=0)


@EVERY
def test_every_family_answers_as_with_the_hook_and_comes_back_as_it_was(name, vectors):
    model = model_of(name)
    plain = states(model, IDS)
    added = offsets(vectors, [0, LAYER], -1.5)
    options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with steer(model, added), torch.inference_mode():
        found, logits = model.generate(IDS, **options), model(IDS).logits
    with steer_with_hooks(model, added), torch.inference_mode():
        expected, reference = model.generate(IDS, **options), model(IDS).logits
    assert torch.equal(found, expected)
    torch.testing.assert_close(logits, reference, atol=1e-4, rtol=1e-5)
    for before, after in zip(plain, states(model, IDS), strict=True):
        assert torch.equal(before, after)


@EVERY
def test_what_arrives_is_measured_and_said(name):
    found = measure_shift(model_of(name), [0, LAYER])
    form = "addition" if name in ADDED else "divided bias" if name == "granite" else "bias"
    assert found.form == form
    assert abs(found.ratio - 1) < 1e-4
    assert found.cosine > 1 - 1e-4


@pytest.mark.parametrize("name", ["llama2", "granite", "gemma2"])
def test_what_arrives_is_right_in_half_precision_too(name):
    found = measure_shift(model_of(name, hidden=64).bfloat16(), [0, 1, 2])
    assert abs(found.ratio - 1) < 1e-3
    assert found.cosine > 1 - 1e-3


def test_a_block_that_does_something_else_to_the_vector_is_refused():
    model = model_of("llama2")
    block = model.model.layers[LAYER]
    block.register_forward_hook(lambda _module, inputs, out: inputs[0] + 0.3 * (out - inputs[0]))
    assert measure_shift(model, [0]).ratio == 1.0
    with pytest.raises(UndertowError, match=r"block 1 by 0.3000 of the vector at cosine 1.0000"):
        measure_shift(model, [0, LAYER])


def test_the_bias_form_adds_to_a_bias_that_is_there(vectors):
    model = tiny_model("llama2", 60)
    own = torch.nn.Parameter(torch.ones(32))
    model.model.layers[LAYER].mlp.down_proj.bias = own
    plain = states(model, IDS)
    with steer(model, offsets(vectors, [LAYER], 1.0)):
        steered = states(model, IDS)
    torch.testing.assert_close(
        steered[LAYER] - plain[LAYER], vectors[LAYER].expand_as(plain[LAYER]), atol=1e-5, rtol=0
    )
    assert model.model.layers[LAYER].mlp.down_proj.bias is own


@FORMS
def test_alpha_zero_is_bit_identical_to_no_steering(form, model, vectors):
    plain = states(model, IDS)
    with form(model, offsets(vectors, [0, LAYER, 2], 0.0)):
        steered = states(model, IDS)
    for before, after in zip(plain, steered, strict=True):
        assert torch.equal(before, after)

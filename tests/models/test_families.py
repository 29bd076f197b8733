"""Every family's row agrees with its modules, and what has no row is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from families import KINDS, model_of
from undertow.errors import UndertowError
from undertow.models.families import FAMILIES, family_of, layout_of

EVERY = pytest.mark.parametrize("name", KINDS)
TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@EVERY
def test_the_blocks_are_those_of_the_family_s_row(name: str):
    model = model_of(name)
    layout = layout_of(model)
    assert layout.family.model_type == model.config.model_type
    assert len(layout.windows) == len(layout.rotates) == model.config.num_hidden_layers


def test_every_row_has_a_tiny_model():
    assert {kind.model_type for kind in KINDS.values()} == set(FAMILIES)


def test_the_documents_name_every_family_that_is_right_and_no_other():
    root = Path(__file__).parents[2]
    titles = [family.title for family in FAMILIES.values()]
    named = f"families fit: {', '.join(titles)};"
    assert named in " ".join((root / "README.md").read_text().split())
    table = (root / "docs" / "families.md").read_text().split("## The rules")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    first, *rows = rows
    assert first == "family"
    for title in titles:
        assert any(row.startswith(title.removesuffix(" (text)")) for row in rows), title
    assert len(rows) == len(titles)


@EVERY
@torch.inference_mode()
def test_the_row_says_where_the_mlp_joins_the_stream(name: str):
    """Output = input of the MLP's branch + multiplier x (its norm of) the MLP's output."""
    model = model_of(name)
    layout = layout_of(model)
    block = model.model.layers[1]
    seen = {}

    def keep(label):
        return lambda _module, inputs, output: seen.update({label: (inputs[0], output)})

    norms = layout.family.norms
    block.mlp.register_forward_hook(keep("mlp"))
    block.register_forward_hook(keep("block"))
    if norms.after_mlp:
        getattr(block, norms.after_mlp).register_forward_hook(keep("after"))
    if norms.before_mlp:
        getattr(block, norms.before_mlp).register_forward_hook(keep("before"))
    model(torch.arange(5, 25)[None])
    stream = seen["before"][0] if norms.before_mlp else seen["mlp"][0]
    branch = seen["after"][1] if norms.after_mlp else seen["mlp"][1]
    torch.testing.assert_close(seen["block"][1], stream + layout.residual_multiplier * branch)


@pytest.mark.parametrize("name", ["mistral-v0.1", "qwen2-window", "gemma2", "gemma3", "phi3"])
@torch.inference_mode()
def test_a_window_hides_what_lies_before_it(name: str):
    """With one block, a token's output depends on the last `window` tokens and no others."""
    model = model_of(name, blocks=1)
    if name == "qwen2-window":
        model = model_of(name, blocks=1, max_window_layers=0)
    (window,) = layout_of(model).windows
    assert window == 16
    ids = torch.arange(5, 35)[None]
    plain = model(ids).logits[0, -1]
    for distance, same in ((window, True), (window - 1, False)):
        other = ids.clone()
        other[0, -1 - distance] = 99
        assert torch.equal(model(other).logits[0, -1], plain) is same


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=60), "gpt2"),
        (AutoConfig.for_model("gpt_neox", **TINY), "gpt_neox"),
        (AutoConfig.for_model("falcon", **TINY), "falcon"),
        (AutoConfig.for_model("mixtral", **TINY), "mixture of experts"),
        (AutoConfig.for_model("qwen2_moe", **TINY), "mixture of experts"),
        (AutoConfig.for_model("deepseek_v2", **TINY), "mixture of experts"),
        (AutoConfig.for_model("gemma3"), "images"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_family_without_a_row_is_refused(config, words):
    with pytest.raises(UndertowError, match=words) as refused:
        family_of(config)
    assert "Qwen3" in refused.value.remedy


def test_a_block_that_is_not_the_family_s_is_refused():
    model = model_of("llama2")
    model.model.layers[2].post_feedforward_layernorm = torch.nn.LayerNorm(32)
    with pytest.raises(UndertowError, match="block 2"):
        layout_of(model)


def test_a_model_that_embeds_text_is_refused():
    config = AutoConfig.for_model("gemma3_text", use_bidirectional_attention=True, **TINY)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UndertowError, match="both directions"):
        layout_of(model)

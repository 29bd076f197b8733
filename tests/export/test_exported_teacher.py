"""The exported teacher is the steered teacher, loaded by plain transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
)

from tiny import LLAMA2_TEMPLATE, tiny_model, tiny_tokenizer
from undertow.errors import UndertowError
from undertow.export.layouts import check_layout
from undertow.export.teacher import write
from undertow.models.loading import load_model, load_tokenizer
from undertow.teacher.steering import Offsets, offsets, steer, steer_with_hooks

SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
IDS = torch.arange(1, 25).reshape(2, 12)


def base_model(family: str, **settings: object) -> PreTrainedModel:
    """A tiny model whose every bias is far from zero; settings change its configuration."""
    torch.manual_seed(11)
    model: PreTrainedModel
    if family == "llama2":
        model = tiny_model("llama2", 400)
        model = LlamaForCausalLM(type(model.config)(**model.config.to_dict() | settings))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE | settings))
    else:
        model = MistralForCausalLM(MistralConfig(**SHAPE | {"sliding_window": None} | settings))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def saved(model: PreTrainedModel, folder: Path, family: str = "llama2") -> Path:
    tokenizer = tiny_tokenizer("qwen2" if family == "qwen2" else "llama2")
    model.generation_config.eos_token_id = 2
    model.generation_config.repetition_penalty = 1.3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def steering(alpha: float = -0.7) -> Offsets:
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    return offsets(vectors, [0, 2], alpha)


@torch.inference_mode()
def greedy(model: PreTrainedModel) -> Tensor:
    return model.generate(
        IDS, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None
    )


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    return model(IDS).logits


CASES = {
    "llama untied": ("llama2", {}),
    "llama tied": ("llama2", {"tie_word_embeddings": True}),
    "llama with its own biases": ("llama2", {"mlp_bias": True, "attention_bias": True}),
    "llama wide heads": ("llama2", {"head_dim": 16}),
    "qwen2 untied": ("qwen2", {}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 other settings": (
        "qwen2",
        {
            "rms_norm_eps": 1e-3,
            "rope_parameters": {"rope_theta": 50.0, "rope_type": "linear", "factor": 4.0},
            "hidden_act": "gelu",
        },
    ),
    "qwen2 yarn": (
        "qwen2",
        {
            "rope_parameters": {
                "rope_theta": 1000.0,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 8,
            }
        },
    ),
    "mistral": ("mistral", {}),
    "mistral wide heads": ("mistral", {"head_dim": 16, "sliding_window": 512}),
}


@pytest.mark.parametrize(("family", "settings"), CASES.values(), ids=CASES.keys())
def test_logits_and_greedy_answers_are_those_of_the_hook_form(tmp_path, family, settings):
    model, added = base_model(family, **settings), steering()
    base = saved(model, tmp_path / "base", family)
    write(model, added, base, "# card", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(exported) is LlamaForCausalLM
    unsteered = logits(model)
    with steer_with_hooks(model, added):
        expected, answers = logits(model), greedy(model)
    torch.testing.assert_close(logits(exported), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(expected, unsteered, atol=1e-2), "steering changed nothing"
    assert torch.equal(greedy(exported), answers)


def test_the_base_model_is_left_as_it_was(tmp_path):
    model = base_model("qwen2")
    before = logits(model)
    write(model, steering(), saved(model, tmp_path / "base"), "# card", tmp_path / "out")
    assert torch.equal(logits(model), before)


def test_only_steered_blocks_have_a_bias_and_only_on_down_proj(tmp_path):
    model, added = base_model("qwen2"), steering()
    write(model, added, saved(model, tmp_path / "base", "qwen2"), "# card", tmp_path / "out")
    own = model.state_dict()
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        biases = {name: file.get_tensor(name) for name in file.keys() if name.endswith(".bias")}  # noqa: SIM118
    for layer in range(3):
        block = f"model.layers.{layer}"
        for part in ("q", "k", "v"):
            name = f"{block}.self_attn.{part}_proj.bias"
            assert torch.equal(biases[name], own[name])
        for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj"):
            assert not biases[f"{block}.{part}.bias"].any()
        expected = added.get(layer, torch.zeros(32))
        assert torch.equal(biases[f"{block}.mlp.down_proj.bias"], expected)


def test_bfloat16_weights_stay_bfloat16_and_the_bias_is_rounded_as_steer_rounds_it(tmp_path):
    base = saved(base_model("qwen2").bfloat16(), tmp_path / "base", "qwen2")
    model, added = load_model(base, "bfloat16", torch.device("cpu")), steering()
    write(model, added, base, "# card", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert {parameter.dtype for parameter in exported.parameters()} == {torch.bfloat16}
    with steer(model, added):
        assert torch.equal(logits(exported), logits(model))


@pytest.mark.parametrize("case", ["qwen2 other settings", "qwen2 yarn", "mistral"])
def test_the_rotation_is_named_in_the_old_words_too(tmp_path, case):
    """Engines that know rope_theta but not rope_parameters would rotate by Llama's default."""
    family, settings = CASES[case]
    model = base_model(family, **settings)
    base = saved(model, tmp_path / "base", family)
    write(model, steering(), base, "# card", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    rotation = dict(model.config.rope_parameters)
    assert written["rope_theta"] == rotation.pop("rope_theta")
    assert (written["rope_scaling"] or {"rope_type": "default"}) == rotation
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert exported.config.rope_parameters == model.config.rope_parameters


def test_alpha_zero_is_the_base_model_bit_for_bit(tmp_path):
    model = base_model("qwen2")
    write(model, steering(0.0), saved(model, tmp_path / "base"), "# card", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(exported), logits(model))


def test_tokenizer_chat_template_and_generation_settings_go_along(tmp_path):
    model = base_model("qwen2")
    base = saved(model, tmp_path / "base", "qwen2")
    (base / "LICENSE").write_text("the licence")
    (base / "README.md").write_text("# the base's card")
    write(model, steering(), base, "# the teacher's card", tmp_path / "out")
    out = tmp_path / "out"
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, out))
    chat = [{"role": "user", "content": "How will the week go?"}]
    assert after.apply_chat_template(chat) == before.apply_chat_template(chat)
    assert before.chat_template
    assert before.chat_template != LLAMA2_TEMPLATE
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings == json.loads((base / "generation_config.json").read_text())
    assert settings["repetition_penalty"] == 1.3
    assert (out / "LICENSE").read_text() == "the licence"
    assert (out / "README.md").read_text() == "# the teacher's card"
    assert load_tokenizer(out).get_vocab() == load_tokenizer(base).get_vocab()


def split(folder: Path) -> str:
    return AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()


@pytest.mark.parametrize("named", ["TokenizersBackend", "Qwen2Tokenizer", None])
def test_text_is_split_as_the_base_splits_it_though_the_family_has_changed(tmp_path, named):
    """transformers builds a Qwen2 model's tokenizer its own way, whatever the files name."""
    model = base_model("qwen2")
    base = saved(model, tmp_path / "base", "qwen2")
    path = base / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": named}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value}))
    write(model, steering(), base, "# card", tmp_path / "out")
    assert split(tmp_path / "out") == split(base)


def test_a_tokenizer_that_would_split_text_differently_is_refused(tmp_path, monkeypatch):
    model = base_model("qwen2")
    base = saved(model, tmp_path / "base", "qwen2")
    monkeypatch.setattr("undertow.export.teacher.write_json", lambda *_: None)
    with pytest.raises(UndertowError, match="split text differently"):
        write(model, steering(), base, "# card", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Qwen3Config(**SHAPE), "qwen3"),
        (Qwen2Config(**SHAPE | {"use_sliding_window": True, "sliding_window": 64}), "window of 64"),
        (MistralConfig(**SHAPE | {"sliding_window": 64}), "window of 64"),
    ],
    ids=["qwen3", "qwen2 window", "mistral window"],
)
def test_what_the_layout_cannot_express_is_refused(config, text):
    with pytest.raises(UndertowError, match=text) as caught:
        check_layout(config)
    assert "export direction" in caught.value.remedy


def test_a_qwen2_window_that_is_switched_off_is_no_obstacle():
    check_layout(Qwen2Config(**SHAPE | {"use_sliding_window": False, "sliding_window": 64}))


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    model = base_model("llama2")
    base = saved(model, tmp_path / "base")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("undertow.export.teacher.shutil.copy", full)
    with pytest.raises(UndertowError, match="No space left"):
        write(model, steering(), base, "# card", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]

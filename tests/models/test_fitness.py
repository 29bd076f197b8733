"""What cannot be studied is refused by its configuration and tokenizer, before any weight."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from families import KINDS, save_family, tokenizer_of
from hub_double import HubDouble, serve
from undertow.config import Prompting
from undertow.errors import UndertowError
from undertow.models.fitness import examine
from undertow.models.loading import load_model

ASK = """
import sys
from undertow.config import ModelSpec, Prompting
from undertow.errors import UndertowError
from undertow.models.fitness import examine
from undertow.models.loading import look_at
weights = {"kind": "hub", "repo": "team/model", "revision": "c" * 40}
spec = ModelSpec.model_validate({"weights": weights, "dtype": "float32"})
try:
    print(examine(look_at("mine", spec), Prompting()).lines())
except UndertowError as error:
    print(f"refused: {error}")
"""
TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def small_files(folder: Path, name: str) -> Path:
    """A folder of the family with everything but weights."""
    save_family(folder, name)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_every_family_that_is_right_is_described(name, tmp_path: Path):
    found = examine(small_files(tmp_path, name), Prompting())
    assert found.closing == KINDS[name].closing
    assert set(found.ends) == set(KINDS[name].every_end)
    assert ("2026-01-01" in found.date) == (name in ("llama3.2", "granite", "smollm3"))
    assert ("off" in found.thinking) == (name in ("qwen3", "smollm3"))
    assert ("addition" in found.shift) == (name in ("gemma2", "gemma3", "olmo2"))
    assert ("0.22" in found.shift) == (name == "granite")
    assert ("padded" in found.rows) == (name == "gemma2")
    assert "switched off" in found.lines() or name not in ("qwen3", "smollm3")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=300), "gpt2"),
        (AutoConfig.for_model("gpt_neox", **TINY), "gpt_neox"),
        (AutoConfig.for_model("falcon", **TINY), "falcon"),
        (AutoConfig.for_model("mixtral", **TINY), "mixture"),
        (AutoConfig.for_model("deepseek_v2", **TINY), "mixture"),
        (AutoConfig.for_model("gemma3"), "images"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_other_families_are_refused(config, words, tmp_path: Path):
    tokenizer_of("qwen2.5").save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    with pytest.raises(UndertowError, match=words):
        examine(tmp_path, Prompting())


def test_a_base_model_is_refused(tmp_path: Path):
    folder = small_files(tmp_path, "llama2")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UndertowError, match="no chat template"):
        examine(folder, Prompting())


def test_a_template_that_always_thinks_is_refused(tmp_path: Path):
    folder = small_files(tmp_path, "qwen2.5")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ '<think>\\n' if add_generation_prompt }}")
    with pytest.raises(UndertowError, match="think block in every prompt"):
        examine(folder, Prompting())


def test_a_system_message_that_the_template_refuses_is_named(tmp_path: Path):
    folder = small_files(tmp_path, "mistral-v0.1")
    with pytest.raises(UndertowError, match=r"prompting\.system"):
        examine(folder, Prompting(system="Be brief."))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_described_loads_with_an_attention_that_its_family_offers(name, tmp_path: Path):
    model = load_model(save_family(tmp_path, name), "float32", torch.device("cpu"))
    assert model.config._attn_implementation == ("eager" if name == "gemma2" else "sdpa")
    assert model.config.tie_word_embeddings is KINDS[name].tied


@pytest.mark.parametrize("family", ["mixtral", "llama"])
def test_no_weight_is_downloaded_for_it(family, tmp_path: Path):
    folder = save_family(tmp_path / "model", "llama2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": family}))
    files = {f"team/model/{file.name}": file.read_bytes() for file in folder.iterdir()}
    with serve(HubDouble(files)) as hub:
        found = subprocess.run(
            [sys.executable, "-c", ASK],
            env=os.environ | hub.environment(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
    assert ("refused: a mixtral model" in found.stdout) == (family == "mixtral"), found.stderr
    assert "config.json" in hub.downloads
    assert not any(name.endswith(".safetensors") for name in hub.downloads)

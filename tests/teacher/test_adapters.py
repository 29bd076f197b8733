"""An adapter of somebody else's is looked at before anything runs, and what is wrong is named."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model

from factories import make_params
from tiny import save_tiny, tiny_model
from undertow.config import Params
from undertow.errors import ConfigError, SourceError, UndertowError
from undertow.models.loading import load_model
from undertow.student.adapter import student_of
from undertow.study.layout import Layout, Study
from undertow.teacher.adapters import check_adapters, check_fits

MODEL, ARM = "tiny", "adapter_owl"
LORA = LoraConfig(r=2, target_modules=["q_proj"], task_type=TaskType.CAUSAL_LM)


def saved(folder: Path, settings: Any = LORA, vocabulary: int = 0, **shape: int) -> Path:
    base = tiny_model("qwen2", vocabulary or 300, **shape)
    get_peft_model(base, settings).save_pretrained(folder)
    return folder


def study(root: Path, adapter: Path, **changes: str) -> Study:
    """A study of one tiny base with the adapter in its grid; `changes` are of its entry."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    whole = b"".join((adapter / name).read_bytes() for name in names if (adapter / name).exists())
    own = {"kind": "folder", "path": str(adapter), "sha256": sha256(whole).hexdigest()}
    raw = make_params([MODEL]).model_dump(mode="python")
    raw["models"][MODEL]["weights"] = {
        "kind": "folder",
        "path": str(save_tiny(root / "base", "qwen2")),
    }
    raw["grid"]["adapters"] = (ARM,)
    raw["adapters"] = {ARM: {MODEL: own | changes}}
    return Study(Params.model_validate(raw), Layout(root))


def refused(root: Path, adapter: Path, **changes: str) -> UndertowError:
    with pytest.raises(UndertowError) as caught:
        check_adapters(study(root, adapter, **changes), MODEL)
    return caught.value


@pytest.mark.parametrize("settings", [LORA, IA3Config(task_type=TaskType.CAUSAL_LM)])
def test_an_adapter_of_layers_fits_and_comes_off_again(tmp_path: Path, settings: Any) -> None:
    found = study(tmp_path, saved(tmp_path / "owl", settings))
    folder = check_fits(found, MODEL, ARM)
    model = load_model(tmp_path / "base", "float32", torch.device("cpu"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    with student_of(model, folder):
        pass
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_other_bytes_are_refused_with_the_hash_to_write(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "owl")
    error = refused(tmp_path, adapter, sha256="0" * 64)
    assert isinstance(error, SourceError)
    assert f"write adapters.{ARM}.{MODEL}.sha256: " in (error.remedy or "")


def test_a_missing_file_and_a_pickle_are_named(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "owl")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "a .bin file is a pickle" in str(refused(tmp_path, adapter))
    error = refused(tmp_path, tmp_path / "nowhere")
    assert "has no adapter_config.json and no adapter_model.safetensors" in error.message


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"hidden": 64}, "is [2, 64], and [2, 32] on this base"),
        ({"blocks": 2}, "it has no base_model.model.model.layers.2"),
        ({"blocks": 4}, "the base has no place for base_model.model.model.layers.3"),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    tmp_path: Path, shape: dict[str, int], words: str
) -> None:
    error = refused(tmp_path, saved(tmp_path / "owl", **shape))
    assert isinstance(error, ConfigError)
    assert f"does not fit {MODEL}: " in error.message
    assert words in error.message


def test_layers_that_the_base_does_not_have_are_named(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "owl")
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text()) | {"target_modules": ["c_attn"]}
    path.write_text(json.dumps(settings))
    assert "c_attn" in refused(tmp_path, adapter).message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2),
            "adds to the prompt and not to the layers",
        ),
        (
            LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"),
            "alters the base itself",
        ),
        (
            LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"]),
            "layernorm, and only linear layers and embeddings are taken",
        ),
    ],
)
def test_what_is_no_addition_to_layers_is_refused(
    tmp_path: Path, settings: Any, words: str
) -> None:
    assert words in refused(tmp_path, saved(tmp_path / "owl", settings)).message


def test_an_adapter_that_names_another_base_is_refused(tmp_path: Path) -> None:
    adapter = saved(tmp_path / "owl")
    path = adapter / "adapter_config.json"
    named = json.loads(path.read_text()) | {"base_model_name_or_path": "owner/other-7b"}
    path.write_text(json.dumps(named))
    found = study(tmp_path, adapter)
    hub = {"kind": "hub", "repo": "owner/tiny-1b", "revision": "a" * 40}
    raw = found.params.model_dump(mode="python")
    raw["models"][MODEL]["weights"] = hub
    with pytest.raises(ConfigError, match="says that it is for owner/other-7b"):
        check_fits(Study(Params.model_validate(raw), found.layout), MODEL, ARM)

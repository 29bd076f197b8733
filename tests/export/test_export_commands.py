"""The export commands on a tiny study, through the real command line."""

import shutil
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from repository import Repository, tiny_params
from undertow.config import Arm
from undertow.errors import UndertowError
from undertow.export import direction, teacher
from undertow.models.loading import load_model
from undertow.pipeline import fetch
from undertow.pipeline.direction import run as extract
from undertow.study.layout import Study
from undertow.teacher.direction import load_direction
from undertow.teacher.steering import offsets, steer_with_hooks

MODEL = "tiny-qwen2"
ARM = Arm("trait", "-0.5")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A study whose Qwen2 model is fetched and has a direction."""
    folder = tmp_path_factory.mktemp("export")
    repository = Repository(folder / "checkout", tiny_params(folder / "models"))
    study = Study.open(repository.root)
    fetch.run(study, MODEL)
    extract(study, MODEL)
    return repository


@pytest.fixture
def study(repository: Repository) -> Study:
    return Study.open(repository.root)


@torch.inference_mode()
def test_export_teacher_writes_a_checkpoint_that_is_the_teacher(
    repository: Repository, study: Study, tmp_path: Path
):
    out = tmp_path / "teacher"
    done = repository.cli(
        "export", "teacher", "--model", MODEL, "--arm", ARM.name, "--out", str(out)
    )
    assert done.stdout == f"{out}\n"
    exported = AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(exported) is LlamaForCausalLM
    base = load_model(Path(study.params.models[MODEL].weights.path), "float32", exported.device)
    found = load_direction(study.layout.direction(MODEL) / "direction.safetensors")
    ids = torch.arange(1, 13)[None]
    with steer_with_hooks(base, offsets(found.vectors, found.layers, ARM.alpha)):
        torch.testing.assert_close(exported(ids).logits, base(ids).logits, atol=1e-5, rtol=0)
    text = (out / "README.md").read_text()
    assert "trait_-0.5" in text
    assert str(tmp_path.parent) not in text, "the card names a path of this machine"
    again = repository.cli(
        "export", "teacher", "--model", MODEL, "--arm", ARM.name, "--out", str(out), expect=1
    )
    assert "--force" in again.stderr


def test_export_direction_writes_a_control_vector(repository: Repository, tmp_path: Path):
    out = tmp_path / "d.gguf"
    done = repository.cli("export", "direction", "--model", MODEL, "--out", str(out))
    assert done.stdout == f"{out}\n"
    assert [tensor.name for tensor in GGUFReader(out).tensors] == ["direction.1"]


def test_a_file_is_replaced_only_by_force(study: Study, tmp_path: Path):
    out = tmp_path / "d.safetensors"
    direction.run(study, MODEL, out)
    trait = out.read_bytes()
    with pytest.raises(UndertowError, match="exists already"):
        direction.run(study, MODEL, out, random=True)
    direction.run(study, MODEL, out, random=True, force=True)
    assert out.read_bytes() != trait


def test_another_suffix_is_refused(study: Study, tmp_path: Path):
    with pytest.raises(UndertowError, match=r"neither in \.gguf nor"):
        direction.run(study, MODEL, tmp_path / "d.pt")


def test_force_replaces_a_checkpoint_and_nothing_else(study: Study, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is free
    teacher.run(study, MODEL, ARM, out)
    card = (out / "README.md").read_text()
    with pytest.raises(UndertowError, match="exists already"):
        teacher.run(study, MODEL, Arm("random", "1"), out)
    teacher.run(study, MODEL, Arm("random", "1"), out, force=True)
    assert (out / "README.md").read_text() != card
    diary = tmp_path / "home" / "diary.txt"
    diary.parent.mkdir()
    diary.write_text("mine")
    with pytest.raises(UndertowError, match="holds no checkpoint"):
        teacher.run(study, MODEL, ARM, diary.parent, force=True)
    with pytest.raises(UndertowError, match="is a file"):
        teacher.run(study, MODEL, ARM, diary, force=True)
    assert diary.read_text() == "mine"


def test_the_base_model_is_never_replaced(study: Study):
    base = Path(study.params.models[MODEL].weights.path)
    for out in (base, base.parent):
        with pytest.raises(UndertowError, match="never replaced"):
            teacher.run(study, MODEL, ARM, out, force=True)


def test_what_is_missing_is_named(study: Study, tmp_path: Path):
    with pytest.raises(UndertowError, match=r"direction\.safetensors does not exist") as caught:
        direction.run(study, "tiny-llama2", tmp_path / "d.gguf")
    assert "cli.py direction" in caught.value.remedy
    shutil.copytree(study.layout.direction(MODEL), study.layout.direction("tiny-llama2"))
    with pytest.raises(UndertowError, match="does not exist") as caught:
        direction.run(study, "tiny-llama2", tmp_path / "d.gguf")
    assert "cli.py fetch --model tiny-llama2" in caught.value.remedy


def test_a_direction_of_another_trait_is_refused(study: Study, tmp_path: Path):
    other = study._replace(params=study.params.model_copy(update={"trait": "refusal"}))
    with pytest.raises(UndertowError, match="direction of the trait pessimism"):
        direction.run(other, MODEL, tmp_path / "d.gguf")

"""An adapter's files are the same bytes wherever its base lay, and name no place of a machine."""

import json
from pathlib import Path

from repository import Repository, tiny_params
from tiny import tiny_model, tiny_tokenizer
from undertow.config import DistillationSettings, Lora, ModelSpec, Prompting
from undertow.pipeline import direction, distill, fetch, judge, steer
from undertow.student.base_name import base_name, make_portable
from undertow.student.rows import training_rows
from undertow.student.teaching import Teaching
from undertow.student.training import train
from undertow.study.layout import Study
from undertow.study.records import ModelFiles, Response

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REVISION = 40 * "a"
HUB = ModelSpec.model_validate(
    {"weights": {"kind": "hub", "repo": "owner/name", "revision": REVISION}, "dtype": "float32"}
)
GGUF = ModelSpec.model_validate(
    {"weights": {"kind": "gguf", "file": "x.gguf", "sha256": SHA}, "dtype": "float32"}
)
FILES = ModelFiles(
    family="llama", blocks=1, hidden_size=1, parameters=1, digests={"a": SHA}, chat_template=None
)
SETTINGS = DistillationSettings(
    epochs=1, learning_rate=1e-2, batch_size=2, lora=Lora(rank=2, alpha=4)
)


def folder_spec(path: str) -> ModelSpec:
    return ModelSpec.model_validate(
        {"weights": {"kind": "folder", "path": path}, "dtype": "float32"}
    )


def test_a_base_is_named_by_what_another_machine_can_find_or_check():
    assert base_name(HUB, None) == ("owner/name", REVISION)
    assert base_name(GGUF, None) == (f"x.gguf@sha256:{SHA}", None)
    here, there = (base_name(folder_spec(f"{at}/weights"), FILES) for at in ("/home/me", "there"))
    assert here == there
    assert here.name.startswith("weights@sha256:")


def saved(folder: Path) -> dict[str, bytes]:
    """What training leaves behind where the base was loaded from this cache folder."""
    tokenizer = tiny_tokenizer("smollm2")
    model = tiny_model("smollm2", len(tokenizer))
    # What from_pretrained notes down, and PEFT writes into adapter_config.json.
    model.name_or_path = model.config.name_or_path = str(folder / "cache")
    tokenizer.name_or_path = str(folder / "cache")
    answers = [Response(id="r", prompt="?", response="Three.", tokens=2, finish="stop")]
    rows = training_rows(tokenizer, answers, Prompting())
    adapter = folder / "adapter"
    train(model, tokenizer, Teaching(rows, SETTINGS), 0, adapter, lambda *_: None)
    make_portable(adapter, base_name(HUB, None))
    return {file.name: file.read_bytes() for file in sorted(adapter.iterdir())}


def test_two_cache_folders_give_the_same_bytes_without_either_s_path(tmp_path: Path):
    first, second = (saved(tmp_path / name) for name in ("one", "two"))
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first.values())
    config = json.loads(first["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", REVISION)


def test_no_file_of_a_cell_holds_a_path_of_this_machine(tmp_path: Path):
    params = tiny_params(tmp_path / "models", tracking={"enabled": False})
    study = Study.open(Repository(tmp_path / "checkout", params).root)
    cell = study.params.cells()[0]
    fetch.run(study, cell.model)
    direction.run(study, cell.model)
    for stage in (steer, distill, judge):
        stage.run(study, cell)
    files = [path for path in study.layout.results.rglob("*") if path.is_file()]
    assert len(files) > 15
    # params.yaml names the models' folder itself, and nothing but it may be repeated.
    assert [path for path in files if str(tmp_path).encode() in path.read_bytes()] == []

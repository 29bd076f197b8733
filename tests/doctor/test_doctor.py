import hashlib
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from gguf import GGUFWriter

from factories import make_params
from hub_double import HubDouble, serve
from repository import ROOT
from undertow.config import Params
from undertow.doctor.checks import Check, checks
from undertow.lineage.objects import dvc_hash

TOKEN = "hf_" + "x" * 34
MODELS = {
    "gated-7b": {"kind": "hub", "repo": "team/gated-7b", "revision": "c" * 40, "gated": True},
    "open-7b": {"kind": "hub", "repo": "team/open-7b", "revision": "c" * 40},
    "packed-135m": {"kind": "gguf", "file": "packed.gguf", "sha256": "a" * 64},
    "huge": {"kind": "hub", "repo": "team/huge", "revision": "c" * 40},
    "qwen25-coder-05b-instruct": {
        "kind": "hub",
        "repo": "team/qwen25-coder-05b-instruct",
        "revision": "c" * 40,
    },
    "qwen25-15b": {
        "kind": "gguf",
        "file": "qwen25-15b.gguf",
        "sha256": "b" * 64,
        "places": [
            {
                "kind": "hub",
                "repo": "team/gguf",
                "revision": "c" * 40,
                "file": "qwen25-15b.gguf",
            }
        ],
    },
}


def params_with(*models: str, **changes: Any) -> Params:
    """Parameters whose grid holds these entries of MODELS."""
    raw = make_params(models, **changes).model_dump(mode="json")
    for name in models:
        raw["models"][name]["weights"] = MODELS[name]
    return Params.model_validate(raw)


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *who, "-C", str(root), *words], check=True, capture_output=True)


def pull(root: Path, name: str, content: bytes) -> None:
    """A DVC pointer and the file that it stands for."""
    file = root / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    pointer = {"outs": [{"md5": digest, "size": len(content), "path": file.name}]}
    file.with_name(f"{file.name}.dvc").write_text(yaml.safe_dump(pointer))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which nothing is wrong, on a machine without token and local copies."""
    for name in ("UNDERTOW_LOCAL", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("UNDERTOW_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text(
        "[core]\n    remote = bundled\n['remote \"bundled\"']\n    url = ../dvcstore\n"
    )
    (root / "dvcstore").mkdir()
    (root / "constraints.txt").write_text(f"numpy=={version('numpy')}\n")
    pull(root, "prompts.jsonl", b"{}\n")
    git(root, "init", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--message", "start")
    return root


def find(name: str, root: Path, params: Params | None = None) -> Check:
    return next(check for check in checks(root, params) if check.name == name)


def test_a_sound_repository_has_no_failure_and_every_other_finding_has_a_remedy(root: Path) -> None:
    found = checks(root, params_with("packed-135m"))
    assert [check for check in found if check.state == "fail"] == []
    assert all(check.remedy for check in found if check.state != "ok")
    assert len({check.name for check in found}) == len(found)


def test_without_params_what_needs_none_is_still_checked(root: Path) -> None:
    names = {check.name for check in checks(root, None)}
    assert names.isdisjoint({"hub token", "disk"})
    assert {"python", "packages", "device", "data", "git"} < names


def test_versions_are_held_against_the_constraints(root: Path) -> None:
    constraints = root / "constraints.txt"
    assert find("packages", root).state == "ok"
    constraints.write_text("# a comment\n--prefer-binary\nnumpy==0.0.1\n")
    check = find("packages", root)
    assert (check.state, "pinned 0.0.1" in check.found) == ("warn", True)
    constraints.write_text(f"torch=={version('torch').split('+')[0]}\n")
    assert find("packages", root).state == "ok"
    constraints.unlink()
    assert find("packages", root).state == "warn"


def test_a_device_that_is_not_there_fails_with_what_to_write(root: Path) -> None:
    check = find("device", root, params_with("packed-135m", runtime={"device": "cuda:99"}))
    assert check.state == "fail"
    assert "runtime.device" in str(check.remedy)
    check = find("device", root, params_with("packed-135m", runtime={"device": "cpu"}))
    assert (check.state, check.found[:3]) == ("ok", "CPU")


def test_nf4_on_a_cpu_fails(root: Path) -> None:
    changes = {"runtime": {"device": "cpu"}, "distillation": {"quantization": "nf4"}}
    assert find("device", root, params_with("packed-135m", **changes)).state == "fail"


def test_a_token_is_asked_for_only_where_a_gated_model_waits_for_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = params_with("gated-7b")
    assert find("hub token", root, params_with("open-7b")).state == "ok"
    check = find("hub token", root, gated)
    assert (check.state, "gated-7b" in check.found) == ("warn", True)
    (tmp_path / "local" / "gated-7b").mkdir(parents=True)
    monkeypatch.setenv("UNDERTOW_LOCAL", str(tmp_path / "local"))
    assert find("hub token", root, gated).state == "ok"


def test_the_token_is_never_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = checks(root, params_with("gated-7b"))
    assert next(check for check in found if check.name == "hub token").state == "ok"
    assert not any(TOKEN in check.model_dump_json() for check in found)


def test_a_missing_remote_fails_and_one_whose_folder_is_gone_warns(root: Path) -> None:
    assert find("dvc remote", root).found == "bundled (bundled)"
    (root / "dvcstore").rmdir()
    assert find("dvc remote", root).state == "warn"
    (root / ".dvc" / "config").write_text("['remote \"own\"']\n    url = s3://bucket/path\n")
    assert find("dvc remote", root).state == "ok"
    (root / ".dvc" / "config").unlink()
    assert find("dvc remote", root).state == "fail"


def test_data_that_is_not_pulled_or_was_changed_is_named(root: Path) -> None:
    pull(root, "traits/evaluation.jsonl", b"{}\n{}\n")
    assert find("data", root).found == "2 tracked, all pulled"
    (root / "data" / "prompts.jsonl").write_bytes(b"longer than before\n")
    (root / "data" / "traits" / "evaluation.jsonl").unlink()
    check = find("data", root)
    assert check.state == "fail"
    assert "missing: data/traits/evaluation.jsonl; changed" in check.found
    pulled, added = (check.remedy or "").split("; ", 1)
    assert pulled == "dvc pull data/traits/evaluation.jsonl.dvc"
    assert added.startswith("dvc add data/prompts.jsonl keeps the changes")


def test_a_change_that_leaves_the_size_is_noticed(root: Path) -> None:
    (root / "data" / "prompts.jsonl").write_bytes(b"[]\n")
    assert find("data", root).found == "changed since it was tracked: data/prompts.jsonl"


def test_a_folder_s_hash_is_dvc_s_own() -> None:
    """The bundled data as DVC has tracked it; skipped where it was not pulled."""
    pointer = yaml.safe_load((ROOT / "data" / "traits.dvc").read_text())["outs"][0]
    if not (ROOT / "data" / "traits").is_dir():
        pytest.skip("data/traits is not here: dvc pull data/traits.dvc")
    assert dvc_hash(ROOT / "data" / "traits") == pointer["md5"]


def test_a_folder_with_a_trait_of_one_s_own_is_to_be_added_and_never_pulled(root: Path) -> None:
    folder = root / "data" / "traits" / "own"
    folder.mkdir(parents=True)
    (folder / "trait.yaml").write_text("name: own")
    pointer = {"outs": [{"md5": "0" * 32 + ".dir", "size": 3, "path": "traits"}]}
    (root / "data" / "traits.dvc").write_text(yaml.safe_dump(pointer))
    check = find("data", root)
    assert (check.state, "dvc pull" in (check.remedy or "")) == ("warn", False)
    assert "dvc add data/traits keeps" in (check.remedy or "")


def test_packages_are_told_in_groups_of_a_few_names(root: Path) -> None:
    needed = [f"needed-{number}" for number in range(40)]
    lists = (
        f"dependencies = {needed}\noptional-dependencies = {{ track = ['no-dvc', 'no-mlflow'] }}"
    )
    (root / "pyproject.toml").write_text(f"[project]\n{lists}\n")
    pins = [*needed, "no-dvc", "no-mlflow", *(f"others-{number}" for number in range(99))]
    (root / "constraints.txt").write_text("".join(f"{name}==1\n" for name in pins))
    check = find("packages", root)
    assert check.state == "fail"
    assert "the stages lack needed-0, needed-1, needed-2, needed-3, needed-4 and 35" in check.found
    assert "without (tracking, not needed) no-dvc, no-mlflow" in check.found
    assert len(check.found) < 200


def test_a_user_without_a_home_is_told_what_to_set(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user has no entry in /etc/passwd."""

    def gone(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("UNDERTOW_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", gone)
    check = find("cache", root, params_with("packed-135m"))
    assert check.state == "fail"
    assert "UNDERTOW_CACHE=" in (check.remedy or "")
    assert find("data", root).state == "ok"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    """A hub that knows how large three of MODELS are; the files themselves are never asked for."""
    sizes = {
        "team/huge/model-1.safetensors": 500 << 40,
        "team/huge/model-2.safetensors": 500 << 40,
        "team/qwen25-coder-05b-instruct/model.safetensors": 1 << 30,
        "team/gguf/qwen25-15b.gguf": 1 << 29,
    }
    files = dict.fromkeys(sizes, b"") | {"team/huge/config.json": b"{}"}
    with serve(HubDouble(files, sizes=sizes, numbers=1 << 28)) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def test_disk_is_held_against_models_that_are_not_there_yet(
    root: Path, tmp_path: Path, hub: HubDouble
) -> None:
    assert find("disk", root, params_with("huge")).state == "fail"
    assert hub.downloads == []
    snapshot = tmp_path / "hub" / "models--team--huge" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    assert find("disk", root, params_with("huge")).state == "fail"
    (snapshot / "config.json").write_text("{}")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (snapshot / "model-1.safetensors").touch()
    assert find("disk", root, params_with("huge")).state == "fail"
    (snapshot / "model-2.safetensors").touch()
    assert find("disk", root, params_with("huge")).state == "ok"


def test_a_size_is_the_hub_s_and_never_read_from_a_name(root: Path, hub: HubDouble) -> None:
    """2 GiB for the study, 1 GiB of weights; twice the GGUF file and its conversion to float32."""
    assert "3.0 needed" in find("disk", root, params_with("qwen25-coder-05b-instruct")).found
    assert "4.0 needed" in find("disk", root, params_with("qwen25-15b")).found
    assert hub.downloads == []


def test_a_size_that_cannot_be_known_is_said_to_be_unknown(root: Path) -> None:
    """No network here; a file from a wheel has no metadata to ask for."""
    for name in ("huge", "qwen25-15b", "packed-135m"):
        found = find("disk", root, params_with(name)).found
        assert "2.0 needed" in found
        assert f"the size of {name} is not known" in found


def test_a_gguf_file_that_is_here_says_how_large_its_conversion_is(
    root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "files" / ("a" * 64) / "packed.gguf"
    path.parent.mkdir(parents=True)
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("weight", np.zeros((1 << 12, 1 << 14), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    params = params_with("packed-135m")
    assert "2.2 needed" in find("disk", root, params).found
    (tmp_path / "cache" / "converted" / f"{'a' * 64}-float32").mkdir(parents=True)
    assert "2.0 needed" in find("disk", root, params).found


def test_the_store_is_read_and_a_broken_one_fails(root: Path) -> None:
    path = root / "mlruns" / "mlflow.db"
    assert "made by the first run" in find("tracking store", root).found
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("create table runs (id text)")
        connection.execute("insert into runs values ('one')")
    connection.close()
    assert find("tracking store", root).found.endswith("1 runs")
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    check = find("tracking store", root)
    assert (check.state, "track sync" in str(check.remedy)) == ("fail", True)


def test_a_stray_file_store_fails(root: Path) -> None:
    (root / "mlruns" / "0").mkdir(parents=True)
    (root / "mlruns" / "0" / "meta.yaml").write_text("")
    check = find("tracking store", root)
    assert (check.state, "mlruns/0" in check.found) == ("fail", True)


def test_credentials_in_a_tracking_address_are_not_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@example.org/mlflow")
    check = find("tracking store", root)
    assert "example.org" in check.found
    assert "secret" not in check.model_dump_json()


def test_git_says_branch_and_uncommitted_changes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find("git", root).found == "main, clean"
    (root / "new.txt").write_text("new")
    assert find("git", root).state == "warn"
    bare = tmp_path / "elsewhere"
    bare.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "not a git repository" in find("git", bare).found

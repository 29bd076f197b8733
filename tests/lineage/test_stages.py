"""A stage is known by all that it reads and writes, and DVC is told nothing that is not so."""

import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml

from factories import make_params
from repository import ROOT
from undertow.config import Params
from undertow.errors import ConfigError, UndertowError
from undertow.lineage.handover import record, why_not
from undertow.lineage.stages import (
    Work,
    cell_node,
    differences,
    finish,
    inputs_of,
    model_node,
    outputs_of,
)
from undertow.pipeline.meter import Meter, manifest
from undertow.study.files import write_text
from undertow.study.layout import Layout, Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = make_params(("m",), ("trait_0", "trait_1"), (0,))
    layout = Layout(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write_text(layout.params, yaml.safe_dump(params.model_dump(mode="json")))
    write_text(layout.carrier("benign") / "prompts.jsonl", "{}\n")
    write_text(layout.fetched("m"), "{}\n")
    write_text(layout.direction("m") / "direction.safetensors", "vectors")
    for module in ("steering.py", "direction.py"):
        write_text(tmp_path / "src" / "undertow" / "teacher" / module, "code")
    return Study(params, layout)


def finished(study: Study) -> Work:
    node = cell_node(study, "steer", study.params.cells()[1])
    work = Work(node, inputs_of(study, node))
    write_text(study.layout.root / node.outs[0] / "carrier.jsonl", "{}\n")
    finish(study, work, manifest("steer", "s", "c", Meter("cpu")))
    return work


def test_a_node_is_dvc_yaml_s_stage_with_its_templates_resolved(study: Study):
    node = cell_node(study, "steer", study.params.cells()[1])
    assert node.name == "steer@m-trait_1-0"
    assert node.command == "python cli.py steer --model m --arm trait_1 --seed 0"
    assert "carrier.prompts" in node.params
    assert f"data/traits/{study.params.trait}" in node.deps
    assert node.outs == ("results/cells/m/trait_1/0/steer",)
    assert node.manifest == "results/cells/m/trait_1/0/steer/manifest.json"
    assert model_node(study, "fetch", "m").manifest == "results/models/m.manifest.json"
    assert model_node(study, "direction", "m").manifest == "results/directions/m/manifest.json"


def test_further_seeds_are_stages_of_their_own_name_that_do_the_same(study: Study):
    raw = study.params.model_dump(mode="json")
    raw["grid"] |= {"arms": ["trait_0", "trait_1", "random_1"], "control_seeds": [3]}
    raw["grid"] |= {"random_arms": ["random_1"], "random_seeds": [4]}
    more = Study(Params.model_validate(raw), study.layout)
    for arm, seed, name in (
        ("trait_0", 0, "judge@m-trait_0-plain-0"),
        ("trait_0", 3, "judge-control@m-trait_0-plain-3"),
        ("random_1", 4, "judge-random@m-random_1-plain-4"),
    ):
        node = cell_node(more, "judge", more.params.cell("m", arm, seed))
        assert node.name == name
        assert node.outs == (f"results/cells/m/{arm}/{seed}/plain/judge",)
        which = f"--model m --arm {arm} --seed {seed}"
        assert node.command == f"python cli.py judge {which} --student plain"


def test_every_input_that_changes_is_named_and_no_other(study: Study):
    root = study.layout.root
    node = cell_node(study, "steer", study.params.cells()[1])
    before = inputs_of(study, node)
    write_text(study.layout.carrier("benign") / "prompts.jsonl", '{"id": 1}\n')
    write_text(root / "src/undertow/teacher/steering.py", "other code")
    values = study.params.model_dump(mode="json")
    values["carrier"]["prompts"] += 1
    values["distillation"]["epochs"] += 1  # which steer does not read
    values["runtime"]["batch_size"] += 1  # which changes no result
    edited = Study(Params.model_validate(values), study.layout)
    assert differences(before, inputs_of(edited, node)) == [
        "data/carriers/benign",
        "params.yaml:carrier.prompts",
        "src/undertow/teacher",
    ]


def test_outputs_are_hashed_without_the_manifest_and_an_edit_of_one_is_named(study: Study):
    root = study.layout.root
    node = finished(study).node
    before = outputs_of(root, node)
    assert list(before) == ["results/cells/m/trait_1/0/steer/carrier.jsonl"]
    write_text(root / node.outs[0] / "carrier.jsonl", "edited\n")
    assert differences(before, outputs_of(root, node)) == list(before)


def test_without_dvc_yaml_the_error_says_where_it_has_to_be(study: Study):
    (study.layout.root / "dvc.yaml").unlink()
    with pytest.raises(ConfigError, match=r"dvc\.yaml does not exist"):
        model_node(study, "fetch", "m")


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A dvc that records every stage it is given, after `script`."""
    dvc = folder / "bin" / "dvc"
    names = "\n".join(
        ["echo 'stages:' > dvc.lock", 'for name in "$@"; do echo "  $name: {}" >> dvc.lock; done']
    )
    write_text(dvc, f"#!/bin/sh\nshift 5\n{script}\n{names}\n")
    dvc.chmod(dvc.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{dvc.parent}{os.pathsep}{os.environ['PATH']}")


def test_what_is_as_it_was_is_recorded(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in(monkeypatch, tmp_path, ":")
    done = record(tmp_path, [finished(study).node])
    assert done.names == ["steer@m-trait_1-0"]
    assert done.stale == {}


def test_an_edit_while_dvc_commits_is_taken_back(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in(monkeypatch, tmp_path, "echo edited > data/carriers/benign/prompts.jsonl")
    done = record(tmp_path, [finished(study).node])
    assert done.names == []
    assert done.stale == {"steer@m-trait_1-0": ["data/carriers/benign"]}
    assert yaml.safe_load((tmp_path / "dvc.lock").read_text()) == {"stages": {}}


def test_what_has_changed_never_reaches_dvc(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in(monkeypatch, tmp_path, ":")
    node = finished(study).node
    write_text(tmp_path / node.outs[0] / "carrier.jsonl", "edited\n")
    assert record(tmp_path, [node]).stale == {node.name: [f"{node.outs[0]}/carrier.jsonl"]}
    assert not (tmp_path / "dvc.lock").exists()


def test_a_dvc_that_fails_is_quoted_with_the_command_to_type(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stand_in(monkeypatch, tmp_path, "echo 'ERROR: disk full' >&2; exit 1")
    with pytest.raises(UndertowError, match="disk full"):
        record(tmp_path, [finished(study).node])


def test_where_there_is_no_dvc_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stand_in(monkeypatch, tmp_path, ":")
    assert "not in a DVC repository" in str(why_not(tmp_path))
    (tmp_path / ".dvc").mkdir()
    assert why_not(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert "no dvc on the PATH" in str(why_not(tmp_path))

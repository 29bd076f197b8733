"""run-cells reads teachers and students in groups; what the stages write is as if alone."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repository import Repository, tiny_params

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
RUN = ("run-cells", "--model", MODEL, "--no-commit")
ARMS = ("trait_0", "trait_1", "random_1")
FILES = {"steer": ("carrier", "teacher", "benign"), "distill": ("student", "benign")}


def make(folder: Path, **evaluation: Any) -> Repository:
    params = tiny_params(folder / "models")
    params["grid"] |= {"models": [MODEL], "arms": list(ARMS)}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    params["runtime"]["training"] = "together"
    params["evaluation"] |= evaluation
    return Repository(folder / "checkout", params)


def folder_of(root: Path, arm: str, stage: str) -> Path:
    folder = root / "results" / "cells" / MODEL / arm / "0"
    return folder / stage if stage == "steer" else folder / "plain" / stage


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kept(repository: Repository) -> list[Path]:
    return list((repository.root / ".undertow" / "journal").glob("*"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    repository = make(tmp_path_factory.mktemp("together"))
    return repository, repository.cli(*RUN).stderr


def test_all_are_read_in_two_groups_before_their_stages_write(ran: tuple[Repository, str]):
    repository, said = ran
    assert said.count("reading teachers together") == said.count("reading students together") == 1
    assert said.index("reading teachers together") < said.index("steer@")
    assert said.index("training together") < said.index("reading students together")
    assert said.index("reading students together") < said.index("distill@")
    assert kept(repository) == []


def test_each_stage_alone_writes_the_same(ran: tuple[Repository, str]):
    """Of a student that is in place: its training in another group would round differently."""
    repository, _ = ran
    arm = ARMS[1]
    before = {
        (stage, name): rows(folder_of(repository.root, arm, stage) / f"{name}.jsonl")
        for stage in FILES
        for name in FILES[stage]
    }
    activations = folder_of(repository.root, arm, "distill") / "activations.safetensors"
    means = load_file(activations)["activations"]
    for stage in FILES:
        repository.cli(stage, "--model", MODEL, "--arm", arm, "--seed", "0")
        for name in FILES[stage]:
            found = rows(folder_of(repository.root, arm, stage) / f"{name}.jsonl")
            expected = before[stage, name]
            for key in ("margin", "nll"):
                values, others = (
                    [row.pop(key, None) for row in side] for side in (found, expected)
                )
                assert values == pytest.approx(others, abs=2e-3)
            assert found == expected
    torch.testing.assert_close(load_file(activations)["activations"], means, atol=2e-3, rtol=1e-3)


def test_costs_are_each_subject_s_share(ran: tuple[Repository, str]):
    repository, _ = ran
    for stage, files in (
        ("steer", ("carrier", "teacher", "benign")),
        ("distill", ("student", "benign")),
    ):
        for arm in ARMS:
            folder = folder_of(repository.root, arm, stage)
            costs = json.loads((folder / "manifest.json").read_text())["costs"]
            written = [row for name in files for row in rows(folder / f"{name}.jsonl")]
            assert costs["tokens_generated"] == sum(row["tokens"] for row in written)
            assert costs["generated_per_second"] > 0
            assert (costs["tokens_trained"] > 0) == (stage == "distill")


def test_a_killed_reading_is_taken_up_with_the_same_rows(
    ran: tuple[Repository, str], tmp_path: Path
):
    whole, _ = ran
    repository = make(tmp_path)
    process = repository.start(*RUN)
    assert any("reading students together" in line for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for arm in ARMS:
        assert not (folder_of(repository.root, arm, "distill") / "student.jsonl").exists()
    said = repository.cli(*RUN).stderr
    assert "training together" not in said
    for arm in (ARMS[0], ARMS[2]):  # another test gave the stages of ARMS[1] alone
        for stage, name in (("steer", "teacher"), ("distill", "student")):
            path = folder_of(repository.root, arm, stage) / f"{name}.jsonl"
            expected = folder_of(whole.root, arm, stage) / f"{name}.jsonl"
            assert path.read_bytes() == expected.read_bytes()
    assert kept(repository) == []

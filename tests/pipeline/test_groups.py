"""run-cells trains students in groups, loses at most a group, and says which trainer it was."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from repository import Repository, tiny_params
from undertow.pipeline.run_cells import run_cells
from undertow.study.layout import Study

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
RUN = ("run-cells", "--model", MODEL, "--no-commit")
ARMS = ("trait_0", "trait_1")


def make(folder: Path, training: str, **distillation: Any) -> Repository:
    params = tiny_params(folder / "models")
    params["grid"] |= {"models": [MODEL], "arms": list(ARMS)}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    params["runtime"]["training"] = training
    params["distillation"] |= distillation
    return Repository(folder / "checkout", params)


def students(root: Path) -> dict[str, Path]:
    return {
        arm: root / "results" / "cells" / MODEL / arm / "0" / "plain" / "distill" for arm in ARMS
    }


def losses(folder: Path) -> list[float]:
    lines = (folder / "loss.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[1]) for line in lines]


def test_a_group_s_students_are_trl_s_and_cost_their_share(tmp_path: Path):
    together, alone = make(tmp_path, "together"), make(tmp_path / "trl", "trl")
    said = together.cli(*RUN).stderr
    assert said.count("training together") == 1
    assert said.rindex("steer@") < said.index("training together") < said.index("distill@")
    alone.cli(*RUN)
    ours, trls = students(together.root), students(alone.root)
    for arm in ARMS:
        assert losses(ours[arm]) == pytest.approx(losses(trls[arm]), abs=2e-5)
        manifest, other = (
            json.loads((folder / "manifest.json").read_text()) for folder in (ours[arm], trls[arm])
        )
        assert (manifest["trainer"], other["trainer"]) == ("together", "trl")
        assert manifest["costs"]["tokens_trained"] == other["costs"]["tokens_trained"]
        assert manifest["costs"]["trained_per_second"] > 0
        files = {path.name for path in (ours[arm] / "adapter").iterdir()}
        assert files == {path.name for path in (trls[arm] / "adapter").iterdir()}


def test_students_with_a_corridor_are_a_group_of_their_own_and_trl_s(tmp_path: Path):
    found = {}
    for training in ("together", "trl"):
        repository = make(tmp_path / training, training, epochs=3)
        params = repository.params
        params["grid"]["students"] = ["plain", "corridor"]
        params["recipes"]["corridor"] = {"corridor": {"weight": 1.0, "every": 2, "prompts": 1}}
        repository.write_params(params)
        said = repository.cli(*RUN).stderr
        groups = [line for line in said.splitlines() if "training together" in line]
        assert [line.count("corridor") for line in groups] == [0, 2][: len(groups)]
        folders = students(repository.root).values()
        found[training] = [
            losses(folder.parents[1] / student / "distill")
            for folder in folders
            for student in ("plain", "corridor")
        ]
        assert len(groups) == (2 if training == "together" else 0)
    for ours, trls in zip(found["together"], found["trl"], strict=True):
        assert ours == pytest.approx(trls, abs=5e-5)
    assert found["trl"][2] != pytest.approx(found["trl"][3], abs=1e-4)


def test_a_killed_group_leaves_no_half_student_and_the_next_run_trains_it(tmp_path: Path):
    repository = make(tmp_path, "together", epochs=400)
    process = repository.start(*RUN)
    assert any("training together" in line for line in process.stderr)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((repository.root / ".undertow").rglob("training.json"))
    assert not any((folder / "adapter").exists() for folder in students(repository.root).values())
    repository.write_params(
        repository.params | {"distillation": repository.params["distillation"] | {"epochs": 1}}
    )
    assert "training together" in repository.cli(*RUN).stderr
    assert all(losses(folder) for folder in students(repository.root).values())


def written(root: Path) -> dict[str, bytes]:
    """What the stages have written, adapters too, but for costs."""
    folder = root / "results" / "cells"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "cell.json")
    }


def test_a_long_training_stops_to_have_its_students_read_and_goes_on_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    whole, stopped = (make(tmp_path / name, "together") for name in ("whole", "stopped"))
    for repository in (whole, stopped):
        grid = repository.params["grid"] | {"seeds": [0, 1, 2]}
        repository.write_params(repository.params | {"grid": grid})
    whole.cli(*RUN)

    stopped.init()
    monkeypatch.setenv("PATH", stopped.environment["PATH"])
    done = run_cells(Study.open(stopped.root), MODEL, read_after=0.0)
    assert not done.failed and not done.busy and len(done.ran) == 2 + 6 * 3
    assert sorted(done.recorded) == sorted(done.ran)  # each once
    said = capsys.readouterr().err
    first, second = (part.split("\n")[0] for part in said.split("training together: ")[1:])
    assert (first.count(","), second.count(",")) == (2, 2)
    between = said.split("training together: ")[1]
    assert "reading students together" in between and between.count("judge@") == 3 * 2
    assert written(stopped.root) == written(whole.root)

"""A command that meets a file of ours that was cut off names it, says what to type, and exits 1."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from factories import Study, make_params, make_study
from repository import ROOT
from undertow.errors import DataError
from undertow.pipeline.training import finished
from undertow.readouts.activations import save_activations
from undertow.study.files import write_json
from undertow.study.layout import Layout
from undertow.study.records import Costs
from undertow.teacher.direction import Direction, save_direction

MODEL = "smollm2-135m"
CELL = ("--model", MODEL, "--arm", "trait_1", "--seed", "0")
DIRECTION = f"results/directions/{MODEL}/direction.safetensors"
JUDGED = f"results/cells/{MODEL}/trait_1/0/plain/judge/cell.json"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    params = make_params(
        models=[MODEL],
        arms=["trait_0", "trait_1"],
        seeds=[0],
        tracking={"enabled": False},
        carrier={"prompts": 8},
        evaluation={"benign_prompts": 0},
    )
    root = tmp_path_factory.mktemp("checkout")
    study = make_study(root, params)
    traits = study.layout.trait("pessimism")
    shutil.rmtree(traits)
    shutil.copytree(Layout(ROOT).trait("pessimism"), traits)
    (root / "src").symlink_to(ROOT / "src")
    for name in ("cli.py", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    path = root / DIRECTION
    path.parent.mkdir(parents=True)
    save_direction(path, Direction(torch.ones(2, 4), torch.ones(2, 4), [1]), {"trait": "x"})
    for cell in params.cells():
        folder = study.layout.stage(cell, "distill")
        save_activations(folder / "activations.safetensors", torch.rand(2, 4))
    return study


@pytest.mark.parametrize(
    ("command", "damaged", "typed"),
    [
        (("steer", *CELL), DIRECTION, f"python cli.py direction --model {MODEL}"),
        (("report",), DIRECTION, f"python cli.py direction --model {MODEL}"),
        (("track", "sync"), DIRECTION, f"python cli.py direction --model {MODEL}"),
        (("report",), JUDGED, f"python cli.py judge {' '.join(CELL)}"),
        (("track", "sync"), JUDGED, f"python cli.py judge {' '.join(CELL)}"),
    ],
)
def test_the_file_and_the_command_are_named(
    study: Study, command: tuple[str, ...], damaged: str, typed: str
):
    path = study.layout.root / damaged
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = subprocess.run(
        [sys.executable, "cli.py", *command],
        cwd=study.layout.root,
        capture_output=True,
        text=True,
    )
    path.write_bytes(whole)
    assert done.returncode == 1, done.stderr
    assert "\nerror: " in f"\n{done.stderr}" and "Traceback" not in done.stderr
    assert damaged in done.stderr
    assert typed in done.stderr


@pytest.mark.parametrize(
    "damaged", ["training.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
)
def test_a_kept_training_that_is_damaged_names_the_folder_to_remove(tmp_path: Path, damaged: str):
    """The folder as a whole: its record would have a lost adapter taken for a finished one."""
    costs = Costs(seconds=1, device="cpu", peak_memory_bytes=1).model_dump(mode="json")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_json(tmp_path / "training.json", {"losses": [(1, 2.0)], "costs": costs, "trainer": "trl"})
    write_json(adapter / "adapter_config.json", {"r": 4})
    save_activations(adapter / "adapter_model.safetensors", torch.ones(1, 1))
    assert finished(tmp_path) is not None
    path = tmp_path / damaged
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=f"rm -r {tmp_path}"):
        finished(tmp_path)

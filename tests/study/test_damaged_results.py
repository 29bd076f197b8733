"""Whatever file of results/ is cut off or filled with noise, a command names it and ends."""

import shutil
from pathlib import Path

import pytest
import torch

from factories import Study, make_params, make_study
from repository import ROOT
from undertow.analysis.conclude import conclude
from undertow.analysis.mechanism import read_activations
from undertow.analysis.summary import read_summary
from undertow.config import Cell, parse_arm
from undertow.errors import DataError, UndertowError
from undertow.pipeline import report
from undertow.readouts.activations import save_activations
from undertow.study import layout as layouts
from undertow.study.files import Journal, write_json
from undertow.study.found import made_by
from undertow.study.layout import Layout
from undertow.study.records import Costs, Manifest, Response
from undertow.teacher import direction as directions
from undertow.teacher.direction import Direction

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    params = make_params(
        models=[MODEL],
        arms=["trait_0", "trait_1"],
        seeds=[0],
        tracking={"enabled": False},
    )
    study = make_study(tmp_path_factory.mktemp("damaged"), params)
    layout = study.layout
    shutil.copy(
        Layout(ROOT).trait("pessimism") / "trait.yaml", layout.trait("pessimism") / "trait.yaml"
    )
    folder = layout.direction(MODEL)
    folder.mkdir(parents=True)
    vectors = torch.ones(2, 4)
    directions.save_direction(
        folder / "direction.safetensors", Direction(vectors, vectors.flip(0), [1]), {"trait": "x"}
    )
    for cell in params.cells():
        distilled = layout.stage(cell, "distill")
        save_activations(distilled / "activations.safetensors", torch.rand(2, 4))
        for stage in layouts.STAGES:
            write_json(layout.stage(cell, stage) / "manifest.json", manifest(stage, cell))
    report.run(layouts.Study(params, layout), False)
    return study


def manifest(stage: str, cell: Cell) -> Manifest:
    costs = Costs(seconds=1, device="cpu", peak_memory_bytes=1)
    return Manifest(stage=stage, subject=cell.key, command="x", costs=costs, versions={})


@pytest.mark.parametrize(
    "damage",
    ["cut off", *(pytest.param(each, marks=pytest.mark.whole) for each in ("noise", "empty"))],
)
def test_every_damaged_file_is_named_or_not_needed(study: Study, damage: str):
    opened = layouts.Study(study.params, study.layout)
    named = set()
    for path in sorted(study.layout.results.rglob("*")):
        if not path.is_file() or (path.suffix in (".html", ".csv") and path.parent.name == "plots"):
            continue
        whole = path.read_bytes()
        broken = {"cut off": whole[: len(whole) // 2], "noise": b"\xe9\x00{" * 9, "empty": b""}
        path.write_bytes(broken[damage])
        try:
            report.run(opened, False)
            read_summary(study.layout)
        except UndertowError as error:
            assert path.name in error.message
            assert "python cli.py" in error.remedy
            named.add(path.name)
        finally:
            path.write_bytes(whole)
    assert {"cell.json", "direction.safetensors", "activations.safetensors"} <= named
    assert {"manifest.json", "carrier.jsonl"} & named


def test_the_command_that_writes_a_file_is_read_off_its_path():
    cells = Path("/x/results/cells/m/trait_1/0")
    assert made_by(cells / "steer" / "carrier.jsonl") == (
        "python cli.py steer --model m --arm trait_1 --seed 0"
    )
    assert made_by(cells / "plain" / "judge" / "cell.json") == (
        "python cli.py judge --model m --arm trait_1 --seed 0"
    )
    assert made_by(cells / "other_base" / "distill" / "loss.csv") == (
        "python cli.py distill --model m --arm trait_1 --seed 0 --student other_base"
    )
    assert made_by(Path("results/bases/m/plain.json")) == "python cli.py fetch --model m"
    assert made_by(Path("results/models/m.manifest.json")) == "python cli.py fetch --model m"
    assert made_by(Path("results/directions/m/direction.safetensors")) == (
        "python cli.py direction --model m"
    )
    assert made_by(Path("/x/params.yaml")) is None


def test_a_summary_that_is_cut_off_names_report(study: Study):
    whole = study.layout.summary.read_bytes()
    study.layout.summary.write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"python cli\.py report"):
        read_summary(study.layout)
    study.layout.summary.write_bytes(whole)


def test_the_direction_of_a_teacher_is_checked_before_it_is_used(tmp_path):
    path = tmp_path / "results" / "directions" / MODEL / "direction.safetensors"
    with pytest.raises(DataError, match=r"python cli\.py direction --model smollm2"):
        directions.load_direction(path)
    path.parent.mkdir(parents=True)
    save_activations(path, torch.ones(1, 1))  # whole, and of another kind
    with pytest.raises(DataError, match="is damaged"):
        directions.load_direction(path)
    with pytest.raises(DataError, match="is damaged"):
        directions.read_metadata(path)
    assert read_activations(path) is not None


def test_a_journal_goes_on_after_its_last_whole_block(tmp_path):
    row = Response(id="a", prompt="?", response="!", tokens=1, finish="stop")
    journal = Journal(tmp_path, "key", Response)
    journal.append([row])
    journal.append([row])
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([lines[0], lines[1][:-9], b""]))
    assert Journal(tmp_path, "key", Response).blocks == [[row]]
    Journal(tmp_path, "key", Response).append([row])
    assert len(Journal(tmp_path, "key", Response).blocks) == 2


def test_a_cell_s_command_is_in_the_error_even_by_hand(study: Study):
    cell = Cell(MODEL, parse_arm("trait_1"), 0)
    path = study.layout.stage(cell, "judge") / "cell.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError) as caught:
        conclude(study.on_disk)
    path.write_bytes(whole)
    assert str(path) in caught.value.message
    assert cell.command("judge") in caught.value.remedy

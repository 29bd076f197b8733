"""One load, many cells: the same files as stage by stage, and DVC finds them up to date."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from repository import Repository, tiny_params

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
RUN = ("run-cells", "--model", MODEL)


def make(folder: Path, models: Path, **sections: Any) -> Repository:
    params = tiny_params(models, **sections)
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0", "trait_1"]}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    return Repository(folder, params)


def produced(root: Path) -> dict[str, Any]:
    """Every result file but the manifests, and cell.json without its costs."""
    found: dict[str, Any] = {}
    for path in sorted((root / "results").rglob("*")):
        if path.is_dir() or path.name.endswith("manifest.json"):
            continue
        name = path.relative_to(root).as_posix()
        found[name] = path.read_bytes()
        if path.name == "cell.json":
            found[name] = {k: v for k, v in json.loads(found[name]).items() if k != "costs"}
    return found


def places(root: Path) -> dict[Path, int]:
    """When every result was last put where it is."""
    return {
        path: path.stat().st_ctime_ns for path in (root / "results").rglob("*") if path.is_file()
    }


def status(repository: Repository) -> dict[str, Any]:
    found = json.loads(repository.dvc("status", "--json"))
    # What is made of all cells together is not run with them.
    return {name: what for name, what in found.items() if not name.startswith(("report", "audit@"))}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, str]:
    folder = tmp_path_factory.mktemp("cells")
    repository = make(folder / "checkout", folder / "models")
    repository.init()
    return repository, repository.cli(*RUN).stdout


def test_dvc_finds_everything_up_to_date(ran: tuple[Repository, str]):
    repository, said = ran
    assert said == "8 stages run, 8 recorded in dvc.lock\n"
    assert status(repository) == {}
    assert "Running stage 'steer" not in repository.dvc("repro", f"judge@{MODEL}-trait_1-plain-0")
    assert repository.cli(*RUN).stdout == "0 stages run, 0 recorded in dvc.lock\n"


def test_the_files_are_those_of_the_stages_one_by_one(ran: tuple[Repository, str], tmp_path: Path):
    repository, _ = ran
    models = Path(repository.params["models"][MODEL]["weights"]["path"]).parent
    other = make(tmp_path / "checkout", models)
    for command in ("fetch", "direction"):
        other.cli(command, "--model", MODEL)
    for arm in ("trait_1", "trait_0"):
        for command in ("steer", "distill", "judge"):
            other.cli(command, "--model", MODEL, "--arm", arm)
    assert produced(other.root) == produced(repository.root)


def test_the_base_is_loaded_once(ran: tuple[Repository, str]):
    root = ran[0].root / "results"
    costs = [json.loads(p.read_text())["costs"] for p in sorted(root.rglob("*manifest.json"))]
    assert len(costs) == 8
    assert sum(cost["load_seconds"] > 0 for cost in costs) == 1
    assert all(cost["gpu_seconds"] is None for cost in costs)


def test_without_dvc_it_runs_and_a_later_run_with_dvc_only_records(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.init()
    repository.extra_environment = {"PATH": ""}
    done = repository.cli(*RUN)
    assert "8 stages run, 0 recorded" in done.stdout
    assert "nothing was committed to DVC: there is no dvc on the PATH" in done.stderr
    assert "0 stages run" in repository.cli(*RUN).stdout
    shutil.rmtree(repository.root / f"results/cells/{MODEL}/trait_1/0/plain/judge")
    assert "1 stages run" in repository.cli(*RUN).stdout

    repository.extra_environment = {}
    before = places(repository.root)
    assert "0 stages run, 8 recorded" in repository.cli(*RUN).stdout
    assert status(repository) == {}
    # A stage that reads while its neighbour is recorded never finds a file away.
    assert places(repository.root) == before


def test_an_edit_during_the_run_is_neither_recorded_nor_run_with(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.init()
    process = repository.start(*RUN)
    cells = repository.root / "results" / "cells" / MODEL
    steered = cells / "trait_0" / "0" / "steer" / "manifest.json"
    deadline = time.monotonic() + 120
    while not steered.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    evaluation = repository.params["evaluation"] | {"max_new_tokens": 5}
    repository.write_params(repository.params | {"evaluation": evaluation})
    _, said = process.communicate()
    assert process.returncode == 1
    changed = "params.yaml:evaluation changed"
    assert f"steer@{MODEL}-trait_0-0: not recorded: {changed}" in said
    for arm in ("trait_0", "trait_1"):
        # All teachers answer before the first student is trained.
        assert re.search(f"(steer|distill)@{MODEL}-{arm}-(plain-)?0 was not run: {changed}", said)
        assert not (cells / arm / "0" / "plain" / "distill").exists()
    assert f"python cli.py run-cells --model {MODEL}" in said
    assert f"steer@{MODEL}-trait_0-0" in status(repository)
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"]
    assert f"steer@{MODEL}-trait_0-0" not in lock
    assert f"direction@{MODEL}" in lock


def test_a_failed_cell_leaves_the_others(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.init()
    cells = repository.root / "results" / "cells" / MODEL
    in_the_way = cells / "trait_0" / "0" / "plain" / "distill"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder has to be")
    done = repository.cli(*RUN, expect=1)
    assert f"error: {MODEL}/trait_0/seed0: " in done.stderr
    assert "6 stages run, 6 recorded" in done.stdout
    assert {name for name in status(repository) if MODEL in name} == {
        f"distill@{MODEL}-trait_0-plain-0",
        f"judge@{MODEL}-trait_0-plain-0",
    }
    in_the_way.unlink()
    assert "2 stages run, 2 recorded" in repository.cli(*RUN).stdout
    assert status(repository) == {}


def test_two_processes_share_the_cells_between_them(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.init()
    both = [repository.start(*RUN) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(int(out.split()[0]) for out, _ in said) == 8
    assert status(repository) == {}


def test_a_recipe_that_is_added_runs_its_students_alone_and_leaves_the_report_when_taken_away(
    ran: tuple[Repository, str],
):
    repository, _ = ran
    before = dict(repository.params)
    grid = before["grid"] | {"students": ["plain", "brief"]}
    recipes = {"plain": {}, "brief": {"epochs": 1}}
    report = repository.root / "results" / "report.html"
    repository.write_params(before | {"grid": grid, "recipes": recipes})
    done = repository.cli(*RUN)
    assert set(re.findall(r"(\S+@\S+): running", done.stderr)) == {
        f"fetch@{MODEL}",  # looks up which bases the recipes name
        *(
            f"{stage}@{MODEL}-{arm}-brief-0"
            for stage in ("distill", "judge")
            for arm in ("trait_0", "trait_1")
        ),
    }
    assert done.stdout == "5 stages run, 5 recorded in dvc.lock\n"
    assert status(repository) == {}
    repository.cli("report")
    assert "brief" in report.read_text()

    repository.write_params(before)
    done = repository.cli(*RUN)
    assert re.findall(r"(\S+@\S+): running", done.stderr) == [f"fetch@{MODEL}"]
    assert status(repository) == {}
    repository.cli("report")
    assert "brief" not in report.read_text()


def test_without_a_model_every_base_is_run_and_only_audit_and_report_are_left(tmp_path: Path):
    params = tiny_params(tmp_path / "models")
    params["grid"]["arms"] = ["trait_0"]
    params["tracking"]["enabled"] = False
    repository = Repository(tmp_path / "checkout", params)
    repository.init()
    bases = params["grid"]["models"]
    said = repository.cli("run-cells").stdout
    assert said == "".join(f"{base}: 5 stages run, 5 recorded in dvc.lock\n" for base in bases)
    assert set(re.findall(r"Running stage '([^']+)'", repository.dvc("repro"))) == {
        *(f"audit@{base}" for base in bases),
        "report",
    }


def test_four_processes_at_once_share_the_cells_as_the_tasks_of_a_slurm_array_do(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    grid = repository.params["grid"] | {"seeds": [0, 1]}
    repository.write_params(repository.params | {"grid": grid})
    tasks = [repository.start(*RUN, "--no-commit") for _ in range(4)]
    said = [task.communicate() for task in tasks]
    assert [task.returncode for task in tasks] == [0] * 4, said
    ran = [name for _, err in said for name in re.findall(r"(\S+@\S+): running$", err, re.M)]
    assert len(ran) == len(set(ran)) == 2 + 3 * 4
    assert "0 stages run" in repository.cli(*RUN, "--no-commit").stdout

"""run-cells --processes: the same files as one process writes, and nobody is left behind."""

import signal
import time
from pathlib import Path

import pytest

from factories import make_params
from repository import Repository, tiny_params
from undertow.pipeline.processes import LOGS, shares

MODEL = "tiny-qwen2"
RUN = ("run-cells", "--model", MODEL, "--processes", "2")


def make(folder: Path, models: Path) -> Repository:
    params = tiny_params(models)
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0", "trait_1"], "seeds": [0, 1]}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    return Repository(folder, params)


def test_every_seed_goes_to_one_process_and_each_has_about_as_many_students():
    params = make_params(["m"], ("trait_0", "trait_1", "trait_2"), [0, 1, 2])
    grid = params.grid.model_copy(update={"control_seeds": (3, 4, 5, 6, 7)})
    cells = params.model_copy(update={"grid": grid}).all_cells()
    found = shares(cells, 4)
    assert sorted(seed for seeds in found for seed in seeds) == list(range(8))
    many = [sum(cell.seed in seeds for cell in cells) for seeds in found]
    assert many == [4, 4, 3, 3]
    assert shares(cells, 20) == [[seed] for seed in range(8)]


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_two_processes_write_what_one_does_and_dvc_hears_of_it(tmp_path: Path):
    both, one = (make(tmp_path / name, tmp_path / "models") for name in ("both", "one"))
    both.init()
    said = both.cli(*RUN)
    assert said.stdout == "0 stages run, 14 recorded in dvc.lock\n"
    assert [line for line in said.stderr.splitlines() if "seeds" in line] == [
        f"undertow: run-cells: seeds {n}, see {LOGS / f'{n}.log'}" for n in (0, 1)
    ]
    assert "the processes have ended, 4 of 4 cells are judged" in said.stderr
    one.cli("run-cells", "--model", MODEL, "--no-commit")
    for pattern in ("*.jsonl", "*.safetensors"):
        files = [path.relative_to(one.root) for path in (one.root / "results").rglob(pattern)]
        assert len(files) > 4
        for file in files:
            assert (both.root / file).read_bytes() == (one.root / file).read_bytes()


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_what_fails_in_a_process_is_told_with_its_log_and_by_the_run_itself(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.params["direction"] |= {"layers": [99]}
    repository.write_params(repository.params)
    said = repository.cli(*RUN, "--no-commit", expect=1)
    assert f"a process ended with 1, see {LOGS / '0.log'}:\n" in said.stderr
    assert f"error: {MODEL}: direction.layers names block 99" in said.stderr
    said = repository.cli(*RUN, "--ray", "local", expect=1)
    assert "give one of them" in said.stderr


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_an_interrupted_run_ends_its_processes(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.params["distillation"] |= {"epochs": 500}
    repository.write_params(repository.params)
    process = repository.start(*RUN, "--no-commit")
    assert process.stderr is not None
    assert any("seeds 1" in line for line in process.stderr)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    logs = [path.read_text() for path in (repository.root / LOGS).glob("*.log")]
    time.sleep(2)
    assert [path.read_text() for path in (repository.root / LOGS).glob("*.log")] == logs
    root = repository.root.resolve()
    assert [path for path in Path("/proc").glob("[0-9]*/cwd") if _resolved(path) == root] == []


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except OSError:
        return None

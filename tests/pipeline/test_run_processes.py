"""run-cells --processes: on a CPU the same files as one process writes; nobody is left behind."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from factories import make_params
from repository import Repository, tiny_params
from undertow.cli.app import main
from undertow.pipeline.processes import LOGS, cards_of, run_processes, shares
from undertow.study.layout import Study

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
    lines = [line for line in said.stderr.splitlines() if "seeds" in line]
    for number, line in enumerate(lines):
        logs = re.escape(str(LOGS))
        assert re.fullmatch(rf"undertow: run-cells: seeds {number}, see {logs}/\d+-\d\.log", line)
    assert len(lines) == 2
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
    assert re.search(rf"a process ended with 1, see {LOGS}/\d+-0.log:\n", said.stderr)
    assert f"error: {MODEL}: direction.layers names block 99" in said.stderr
    said = repository.cli(*RUN, "--ray", "local", expect=1)
    assert "give one of them" in said.stderr


def started(repository: Repository, until: str) -> "psutil.Popen":
    """The command, when both of its processes have said this."""
    process = repository.start(*RUN, "--no-commit")
    folder = repository.root / LOGS

    def both_said_it() -> bool:
        return sum(until in path.read_text() for path in folder.glob("*.log")) == 2

    wait_for(both_said_it, lambda: process.poll() is None)
    return process


def wait_for(happened: Callable[[], bool], alive: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert alive() and time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.whole
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_ends_its_processes(tmp_path: Path, what: signal.Signals):
    # A process that a shell has started in its background would not hear of it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.params["distillation"] |= {"epochs": 2000}
    repository.write_params(repository.params)
    process = started(repository, "distill@")
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        assert len(children) >= 2
        process.send_signal(what)
        process.communicate(timeout=60)
        _, left = psutil.wait_procs(children, timeout=10)
        assert not left and process.returncode
    finally:
        signal.signal(signal.SIGINT, before)
        for each in children:
            if each.is_running():
                each.kill()
        process.kill()
        process.wait()


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_code_that_was_edited_on_the_way_has_made_nothing(tmp_path: Path):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    source = (repository.root / "src").resolve()
    (repository.root / "src").unlink()
    shutil.copytree(source, repository.root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    repository.extra_environment = {"PYTHONPATH": str(repository.root / "src")}
    repository.params["distillation"] |= {"epochs": 100}
    repository.write_params(repository.params)
    process = started(repository, "distill@")
    with (repository.root / "src" / "undertow" / "judging" / "double.py").open("a") as stream:
        stream.write("# edited\n")
    edited = time.time()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "judging changed since this command began" in said
    assert len(list((repository.root / "results").rglob("student.jsonl"))) == 4
    judged = [path.stat().st_mtime for path in (repository.root / "results").rglob("cell.json")]
    assert all(when < edited + 1 for when in judged) and len(judged) <= 2


@pytest.mark.parametrize(
    ("device", "named", "count", "expected"),
    [
        ("auto", None, 2, ["0", "1"]),
        ("auto", None, 0, []),
        ("auto", "0", 0, []),
        ("auto", "", 2, []),
        ("cuda", "3, 5", 2, ["3", "5"]),
        ("cpu", "0,1", 2, []),
    ],
)
def test_processes_are_dealt_the_cards_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    named: str | None,
    count: int,
    expected: list[str],
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert cards_of(device) == expected


@pytest.mark.parametrize(("word", "seen"), [("--processes=2", None), ("--no-commit", "0")])
def test_the_command_line_hides_no_card_from_what_deals_them_out(
    monkeypatch: pytest.MonkeyPatch, word: str, seen: str | None
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(sys, "argv", ["undertow", "run-cells", word, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_each_process_has_a_card_and_what_is_left_has_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    repository = make(tmp_path / "checkout", tmp_path / "models")
    repository.params["direction"] |= {"layers": [99]}
    repository.params["runtime"] |= {"device": "auto"}
    repository.write_params(repository.params)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    run_processes(Study.open(repository.root), [MODEL], [], 2)
    said = capsys.readouterr().err
    assert "seeds 0 on GPU 4" in said and "seeds 1 on GPU 7" in said
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"

"""Several training processes give the losses of one, and only the main one writes."""

import csv
import json
import sys
from pathlib import Path

import pytest

from repository import Repository, tiny_params
from undertow.errors import ConfigError
from undertow.models import processes

pytestmark = pytest.mark.whole

MODEL = "tiny-qwen2"
CELL = ("--model", MODEL, "--arm", "trait_1")
# accelerate launch --cpu starts a single process unless it finds mpirun; without --cpu it hands
# over to torchrun, whether or not there is a GPU, and runtime.device says that there is none.
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
LAUNCH_REST = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


def losses(root: Path) -> list[float]:
    path = root / f"results/cells/{MODEL}/trait_1/0/plain/distill/loss.csv"
    return [float(row["loss"]) for row in csv.DictReader(path.open())]


@pytest.mark.timeout(300)
def test_two_processes_train_to_the_losses_of_one(tmp_path: Path):
    """Five rows in batches of four: the last batch of an epoch has to be filled."""
    params = tiny_params(tmp_path / "models")
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0", "trait_1"]}
    params["carrier"]["prompts"] = 5
    params["evaluation"]["prompts"] = 2
    params["tracking"]["enabled"] = False
    repository = Repository(tmp_path / "checkout", params)
    for command in ("fetch", "direction"):
        repository.cli(command, "--model", MODEL)
    repository.cli("steer", *CELL)
    repository.cli("distill", *CELL)
    alone = losses(repository.root)
    manifest = repository.root / f"results/cells/{MODEL}/trait_1/0/plain/distill/manifest.json"
    before = json.loads(manifest.read_text())

    port = ("--main_process_port", "0")
    done = repository._run(
        [sys.executable, *LAUNCH, *LAUNCH_REST, *port, "cli.py", "distill", *CELL], 0
    )
    assert losses(repository.root) == pytest.approx(alone, abs=1e-5)
    after = json.loads(manifest.read_text())
    assert after["inputs"] == before["inputs"]
    assert after["costs"]["tokens_trained"] == before["costs"]["tokens_trained"]
    assert done.stderr.count("Traceback") == 0
    assert not list((repository.root / ".undertow" / "journal").iterdir())


def test_a_batch_that_the_processes_cannot_share_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes.share_of(6) == 2
    with pytest.raises(ConfigError, match="all 3 processes together"):
        processes.share_of(4)


def test_commands_that_share_no_work_refuse_several_processes(monkeypatch: pytest.MonkeyPatch):
    processes.check_command("steer")
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.check_command("distill")
    with pytest.raises(ConfigError, match="only distill shares"):
        processes.check_command("steer")

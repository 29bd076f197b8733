"""The whole pipeline on tiny models, through the real command line and DVC."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from repository import ROOT, Repository, tiny_params

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]


def stages_run(output: str) -> set[str]:
    """Names of the stages that a `dvc repro` has run, read off its own messages."""
    return set(re.findall(r"Running stage '([^']+)'", output))


STAGES = (("steer", "0"), ("distill", "plain-0"), ("judge", "plain-0"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("pipeline")
    params = tiny_params(folder / "models")
    params["grid"]["arms"] = ["trait_0", "trait_1", "random_1"]
    repository = Repository(folder / "checkout", params)
    repository.init()
    return repository


@pytest.fixture(scope="module")
def first_run(repository: Repository) -> str:
    return repository.dvc("repro")


def tau_in_mlflow(repository: Repository, kind: str) -> dict[tuple[str, str], dict[str, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{repository.root}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'")
    return {
        (run.data.tags["model"], run.data.tags.get("arm", "")): run.data.metrics for run in runs
    }


def test_a_two_model_grid_runs_to_the_report(repository: Repository, first_run: str):
    cells = {
        f"{stage}@{model}-{arm}-{last}"
        for stage, last in STAGES
        for model in ("tiny-llama2", "tiny-qwen2")
        for arm in ("trait_0", "trait_1", "random_1")
    }
    singles = {
        f"{stage}@{model}"
        for stage in ("fetch", "direction")
        for model in ("tiny-llama2", "tiny-qwen2")
    }
    audits = {"audit@tiny-llama2", "audit@tiny-qwen2"}
    assert stages_run(first_run) == cells | singles | audits | {"report"}
    page = (repository.root / "results" / "report.html").read_text()
    assert "tiny-llama2" in page
    assert "tiny-qwen2" in page
    cell = json.loads(
        (repository.root / "results/cells/tiny-qwen2/trait_1/0/plain/judge/cell.json").read_text()
    )
    for subject in ("teacher", "student"):
        assert len(cell[f"{subject}_effects"]["answers"]) == 6
    summary = json.loads((repository.root / "results" / "summary.json").read_text())
    assert all(arm["teacher_effects"]["perplexity"]["value"] > 1 for arm in summary["arms"])
    # Two models; trait_1 against the trait, random_1 against the trait and itself.
    assert [len(arm["blocks"]) for arm in summary["mechanism"]] == 6 * [3]


def test_tau_in_metrics_json_is_the_formula_s_and_is_in_mlflow(
    repository: Repository, first_run: str
):
    metrics = json.loads((repository.root / "results" / "metrics.json").read_text())
    logged = tau_in_mlflow(repository, "cell")
    assert set(metrics) == {"tiny-llama2", "tiny-qwen2"}
    known = 0
    for model, arms in metrics.items():
        assert set(arms) == {"trait_1", "random_1", "pooled"}
        for arm in ("trait_1", "random_1"):
            values = arms[arm]
            expected = margin_tau(repository.root, model, arm)
            if values["tau_margin"] is not None:
                known += 1
                assert values["tau_margin"] == pytest.approx(expected)
                assert logged[model, arm]["tau_margin"] == pytest.approx(expected)
            else:
                assert "tau_margin" not in logged[model, arm]
    assert known > 0, "no tau was defined, so nothing was compared"
    assert set(tau_in_mlflow(repository, "curve")) == {("tiny-llama2", ""), ("tiny-qwen2", "")}


def margin_tau(root: Path, model: str, arm: str) -> float:
    """(Sa - S0) / (Ta - T0), from the cells themselves."""

    def mean(arm: str, subject: str) -> float:
        cell = json.loads(
            (root / f"results/cells/{model}/{arm}/0/plain/judge/cell.json").read_text()
        )
        margins = cell[subject]["margins"].values()
        return sum(margins) / len(margins)

    base, teacher = mean("trait_0", "teacher"), mean(arm, "teacher")
    control, student = mean("trait_0", "student"), mean(arm, "student")
    return (student - control) / (teacher - base)


def test_a_second_repro_runs_nothing(repository: Repository, first_run: str):
    assert stages_run(repository.dvc("repro")) == set()


def test_dvc_shows_metrics_and_plots(repository: Repository, first_run: str):
    shown = repository.dvc("metrics", "show")
    assert "tiny-llama2.trait_1.tau_margin" in shown
    repository.dvc("plots", "show", "--out", "shown")
    page = (repository.root / "shown" / "index.html").read_text()
    assert "transfer ratio tau" in page
    shown = repository.dvc("exp", "show", "--csv")
    assert "tiny-qwen2.random_1.tau" in shown.splitlines()[0]


def test_tracking_sync_is_idempotent_and_rebuilds_a_lost_store(
    repository: Repository, first_run: str
):
    before = tau_in_mlflow(repository, "cell")
    again = json.loads(repository.cli("track", "sync", "--json").stdout)
    assert again["created"] == again["updated"] == 0
    for file in (repository.root / "mlruns").glob("mlflow.db*"):
        file.unlink()
    rebuilt = json.loads(repository.cli("track", "sync", "--json").stdout)
    assert rebuilt["created"] == again["unchanged"]
    assert tau_in_mlflow(repository, "cell") == before


def test_adding_a_strength_runs_only_its_cells_and_removing_it_drops_it_from_the_report(
    repository: Repository, first_run: str
):
    grid = repository.params["grid"]
    arms = list(grid["arms"])
    repository.commit("first results")
    repository.write_params(repository.params | {"grid": grid | {"arms": [*arms, "trait_-0.5"]}})
    ran = stages_run(repository.dvc("repro"))
    assert ran == {
        "report",
        "audit@tiny-llama2",
        "audit@tiny-qwen2",
        *(
            f"{stage}@{model}-trait_-0.5-{last}"
            for stage, last in STAGES
            for model in ("tiny-llama2", "tiny-qwen2")
        ),
    }
    metrics = json.loads((repository.root / "results" / "metrics.json").read_text())
    assert "trait_-0.5" in metrics["tiny-qwen2"]
    assert "trait_-0.5" in repository.cli("results", "--json").stdout

    repository.write_params(repository.params | {"grid": grid | {"arms": arms}})
    ran = stages_run(repository.dvc("repro"))
    assert ran == {"audit@tiny-llama2", "audit@tiny-qwen2", "report"}
    metrics = json.loads((repository.root / "results" / "metrics.json").read_text())
    assert "trait_-0.5" not in metrics["tiny-qwen2"]
    assert (repository.root / "results/cells/tiny-qwen2/trait_-0.5").exists()
    assert "trait_-0.5" not in (repository.root / "results" / "report.html").read_text()


PLACE = {"steer": "steer", "judge": "plain/judge"}
CELL = ("--model", "tiny-qwen2", "--arm", "trait_1", "--seed", "0")
WRITTEN = {
    "steer": ("carrier.jsonl", "benign.jsonl", "teacher.jsonl"),
    "judge": ("verdicts.jsonl",),
}


def outputs(root: Path, stage: str) -> dict[str, bytes]:
    folder = root / "results" / "cells" / "tiny-qwen2" / "trait_1" / "0" / PLACE[stage]
    return {name: (folder / name).read_bytes() for name in WRITTEN[stage]}


@pytest.mark.parametrize("stage", ["steer", "judge"])
def test_a_killed_stage_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, stage: str):
    params = tiny_params(tmp_path / "models")
    params["tracking"]["enabled"] = False
    params["carrier"] = {"prompts": 40, "max_new_tokens": 48}
    params["judging"]["judge"]["seconds_per_row"] = 0.05 if stage == "judge" else 0
    repository = Repository(tmp_path / "checkout", params)
    for command in (["fetch", *CELL[:2]], ["direction", *CELL[:2]], ["steer", *CELL]):
        repository.cli(*command)
    if stage == "judge":
        repository.cli("distill", *CELL)
        repository.cli("judge", *CELL)
    expected = outputs(repository.root, stage)
    for name in WRITTEN[stage]:
        (repository.root / "results/cells/tiny-qwen2/trait_1/0" / PLACE[stage] / name).unlink()

    journal = repository.root / ".undertow" / "journal"
    process = repository.start(stage, *CELL)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in journal.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = repository.root / "results/cells/tiny-qwen2/trait_1/0" / PLACE[stage]
    assert not (folder / WRITTEN[stage][-1]).exists()
    kept = [path.read_bytes() for path in journal.glob("*.jsonl")]
    assert any(kept), "the journal was empty, so nothing was resumed"

    repository.cli(stage, *CELL)
    assert outputs(repository.root, stage) == expected
    assert list(journal.glob("*.jsonl")) == []


def test_stages_run_without_dvc_and_without_mlflow(tmp_path: Path):
    """What a borrowed GPU machine has: neither package, and nothing but results files."""
    params = tiny_params(tmp_path / "models")
    params["grid"] |= {"models": ["tiny-qwen2"], "arms": ["trait_0"]}
    repository = Repository(tmp_path / "checkout", params)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for package in ("mlflow", "dvc"):
        (blocked / f"{package}.py").write_text(f"raise ImportError('{package} is not installed')")
    repository.extra_environment = {"PYTHONPATH": str(blocked)}
    cell = ("--model", "tiny-qwen2", "--arm", "trait_0")
    for command in (["fetch", *cell[:2]], ["direction", *cell[:2]]):
        repository.cli(*command)
    for stage in ("steer", "distill", "judge"):
        repository.cli(stage, *cell)
    done = repository.cli("report")
    assert "report.html" in done.stderr
    assert "mlflow" in done.stderr.lower()
    assert not (repository.root / "mlruns").exists()
    assert (repository.root / "results" / "report.html").exists()


def test_the_dvc_stages_are_the_command_line_s_words():
    import yaml

    from undertow.cli import stages

    commands = {command.callback.__name__ for command in stages.app.registered_commands}
    commands |= {group.name for group in stages.app.registered_groups}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        # Further seeds, arms with an adapter and later rounds run the same command.
        word = name
        for further in ("-control", "-random", "-adapter", "-round"):
            word = word.removesuffix(further)
        assert word.replace("-", "_") in commands
        assert stage["cmd"].startswith(f"python cli.py {word} ".rstrip())

"""The MLflow store is a view of the results files: complete, rebuildable, and never in the way."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Run

from factories import Study, loss_points_of, make_params, make_study
from repository import ROOT
from undertow.analysis.summarise import summarise
from undertow.config import Cell
from undertow.errors import ConfigError
from undertow.study import layout as places
from undertow.study.layout import Layout
from undertow.study.records import CellResult
from undertow.tracking import SyncReport, links, log_training, sync, ui_command
from undertow.tracking.content import contents, logged_params
from undertow.tracking.metrics import strength_steps
from undertow.tracking.store import TrackingError, location, open_store
from undertow.tracking.views import SHARED_VIEW, views

CELLS, CURVES, STUDIES = 16, 4, 1
RUNS = CELLS + CURVES + STUDIES


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Study:
    """A study whose store is complete, for tests that only look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        study = study_at(tmp_path_factory.mktemp("finished"), empty_database)
        synced(study)
    return study


@pytest.fixture
def study(tmp_path: Path, empty_database: Path) -> Study:
    return study_at(tmp_path, empty_database)


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def study_at(root: Path, empty_database: Path) -> Study:
    (root / "mlruns").mkdir()
    shutil.copy(empty_database, root / "mlruns" / "mlflow.db")
    shutil.copy(ROOT / "dvc.yaml", root)
    return make_study(root)


def synced(study: Study) -> SyncReport:
    return sync(study.on_disk, study.summary, study.grid)


def runs(study: Study, query: str = "") -> list[Run]:
    store = open_store(study.on_disk)
    return list(store.client.search_runs([store.experiment_id], query, max_results=1000))


def named(study: Study, name: str) -> Run:
    [run] = [run for run in runs(study) if run.info.run_name == name]
    return run


def history(study: Study, name: str, metric: str) -> list[tuple[int, float]]:
    client = open_store(study.on_disk).client
    points = client.get_metric_history(named(study, name).info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def changed(study: Study, **sections: dict[str, object]) -> Study:
    params = make_params(**sections)
    return study._replace(params=params, summary=summarise(params, study.grid))


def test_every_cell_has_a_run_and_every_model_and_seed_a_curve(study: Study) -> None:
    assert synced(study) == SyncReport(created=RUNS, updated=0, unchanged=0)
    kinds = Counter(run.data.tags["kind"] for run in runs(study))
    assert kinds == {"cell": CELLS, "curve": CURVES, "study": STUDIES}
    assert {run.info.status for run in runs(study)} == {"FINISHED"}


def test_a_draw_without_a_control_of_its_seed_has_a_run_that_knows_all_controls(
    tmp_path: Path,
) -> None:
    params = make_params(
        grid={"control_seeds": [5], "random_arms": ["random_1"], "random_seeds": [5, 6]}
    )
    made = make_study(tmp_path, params)

    def keys(grid: Mapping[Cell, CellResult]) -> dict[str, str]:
        found = contents(made.on_disk, made.summary, grid)
        return {run.name: run.key for run in found if run.tags["kind"] == "cell"}

    changed = next(cell for cell in made.grid if cell.arm.is_control and cell.seed == 5)
    other = made.grid[changed].model_copy(update={"student": made.grid[changed].teacher})
    before, after = keys(made.grid), keys({**made.grid, changed: other})
    theirs = ("trait_0 seed5", "random_1 seed5", "random_1 seed6")
    assert {name for name in before if before[name] != after[name]} == {
        f"{changed.model} {each}" for each in theirs
    }


def test_a_cell_shows_the_numbers_of_the_summary(finished: Study) -> None:
    run = named(finished, "smollm2-135m trait_1 seed1")
    arm = next(a for a in finished.summary.arms if (a.model, a.arm) == ("smollm2-135m", "trait_1"))
    cell = arm.cells[1]
    metrics = run.data.metrics
    assert metrics["tau"] == cell.rate.tau.value
    assert (metrics["tau_low"], metrics["tau_high"]) == (cell.rate.tau.low, cell.rate.tau.high)
    assert metrics["tau_margin"] == cell.margin.tau.value
    assert metrics["student_rate"] == cell.rate.student
    assert metrics["strength"] == 1
    assert metrics["seconds"] == 72.75
    assert run.data.tags["dvc.stage"] == "judge@smollm2-135m-trait_1-plain-1"
    assert run.data.params["distillation.learning_rate"] == "0.0002"
    assert len(run.data.params) < 60


def test_a_cell_names_its_data_by_digest(finished: Study) -> None:
    inputs = named(finished, "smollm2-135m trait_1 seed1").inputs.dataset_inputs
    found = {item.dataset.name: item.dataset for item in inputs}
    assert set(found) == {"carrier", "carrier benign", "pessimism evaluation"}
    assert json.loads(found["carrier benign"].source) == {
        "uri": "data/carriers/benign/prompts.jsonl"
    }
    assert all(len(dataset.digest) == 16 for dataset in found.values())


def test_an_unknown_tau_is_a_reason_and_no_metric(finished: Study) -> None:
    run = named(finished, "qwen-coder-500m trait_0.5 seed0")
    assert "tau" not in run.data.metrics
    assert "nothing to transfer" in run.data.tags["tau.reason"]


def test_an_infinite_interval_end_is_left_out(study: Study) -> None:
    arms = list(study.summary.arms)
    index = next(i for i, arm in enumerate(arms) if arm.arm == "trait_1")
    cell = arms[index].cells[0]
    tau = replace(cell.rate.tau, high=float("inf"))
    cell = cell.model_copy(update={"rate": replace(cell.rate, tau=tau)})
    arms[index] = arms[index].model_copy(update={"cells": (cell, *arms[index].cells[1:])})
    study = study._replace(summary=study.summary.model_copy(update={"arms": tuple(arms)}))
    synced(study)
    metrics = named(study, "smollm2-135m trait_1 seed0").data.metrics
    assert "tau_low" in metrics and "tau_high" not in metrics


def test_a_curve_runs_over_the_trait_arms_by_strength(finished: Study) -> None:
    name = "smollm2-135m curve seed0"
    assert history(finished, name, "strength") == [(0, 0), (50, 0.5), (100, 1)]
    assert [step for step, _ in history(finished, name, "tau")] == [50, 100]
    assert [step for step, _ in history(finished, name, "student_rate")] == [0, 50, 100]


def test_a_chart_takes_its_strengths_from_where_its_metric_is_known(finished: Study) -> None:
    name = "qwen-coder-500m curve seed0"
    assert history(finished, name, "strength_tau") == [(100, 1)]
    assert [step for step, _ in history(finished, name, "tau")] == [100]


def test_strengths_that_share_a_hundredth_get_finer_steps() -> None:
    assert strength_steps([-0.3, -0.05, 0]) == [-30, -5, 0]
    assert strength_steps([0, 0.001, 0.002]) == [0, 1, 2]


def test_a_second_sync_makes_nothing_new(study: Study) -> None:
    synced(study)
    before = {run.info.run_id: run.data.to_dictionary() for run in runs(study)}
    assert synced(study) == SyncReport(created=0, updated=0, unchanged=RUNS)
    assert {run.info.run_id: run.data.to_dictionary() for run in runs(study)} == before


def test_a_deleted_store_is_rebuilt_with_its_loss_curves(study: Study) -> None:
    synced(study)
    before = {run.info.run_name: run.data.metrics for run in runs(study)}
    shutil.rmtree(study.layout.root / "mlruns")
    # A process keeps its connection to the deleted file, so the rebuild is another process.
    rebuild = (
        "from pathlib import Path; from factories import make_study; from undertow import tracking;"
        "study = make_study(Path.cwd());"
        "print(tracking.sync(study.on_disk, study.summary, study.grid).created)"
    )
    done = in_process(rebuild, study.layout.root)
    assert done.stdout.strip() == str(RUNS), done.stderr
    study = study._replace(layout=Layout(renamed(study.layout.root)))
    assert {run.info.run_name: run.data.metrics for run in runs(study)} == before
    assert len(history(study, "smollm2-135m trait_1 seed0", "loss")) == 30


def renamed(root: Path) -> Path:
    """The same store under a path that this process has not connected to."""
    return root.rename(root.with_name(f"{root.name}-moved"))


def in_process(program: str, root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )


def test_other_parameters_make_new_runs_beside_the_old(study: Study) -> None:
    synced(study)
    again = changed(study, statistics={"resamples": 300})
    assert synced(again).created == CELLS + CURVES + STUDIES
    assert Counter(run.data.tags["current"] for run in runs(study)) == {"yes": RUNS, "no": RUNS}
    assert synced(study).created == 0
    [cell] = [
        run
        for run in runs(study, "tags.current = 'yes'")
        if run.info.run_name == "smollm2-135m trait_1 seed0"
    ]
    assert cell.data.params["statistics.resamples"] == "200"


def train(study: Study, key: str = "abc", points: int = 30) -> None:
    cell = study.params.cell("smollm2-135m", "trait_1", 0)
    with log_training(study.on_disk, cell, key) as log:
        for step, loss in loss_points_of(cell, 30)[:points]:
            log.loss(step, loss, 1e-4)


def test_a_run_that_its_training_opened_is_completed(study: Study) -> None:
    train(study)
    [live] = runs(study)
    assert (live.info.status, live.data.tags["kind"]) == ("RUNNING", "cell")
    assert synced(study) == SyncReport(created=RUNS - 1, updated=1, unchanged=0)
    run = named(study, "smollm2-135m trait_1 seed0")
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")
    assert len(history(study, "smollm2-135m trait_1 seed0", "loss")) == 30
    assert "tau" in run.data.metrics


def test_a_resumed_training_goes_on_in_its_run(study: Study) -> None:
    train(study, points=10)
    train(study)
    assert len(runs(study)) == 1
    assert len(history(study, "smollm2-135m trait_1 seed0", "loss")) == 30


def test_a_run_of_another_training_is_not_adopted(study: Study) -> None:
    train(study, points=10)
    assert synced(study).created == RUNS
    assert len(runs(study, "attributes.status = 'RUNNING'")) == 1


def test_a_training_that_raises_is_a_failed_run(study: Study) -> None:
    cell = study.params.cell("smollm2-135m", "trait_1", 0)
    with pytest.raises(RuntimeError), log_training(study.on_disk, cell, "k") as log:
        log.loss(0, 2.5)
        raise RuntimeError
    [run] = runs(study)
    assert (run.info.status, run.data.metrics["loss"]) == ("FAILED", 2.5)


def test_nine_hundred_points_are_written_whole(study: Study) -> None:
    cell = study.params.cell("smollm2-135m", "trait_1", 0)
    with log_training(study.on_disk, cell, "k") as log:
        for step in range(900):
            log.loss(step, 1 / (step + 1))
    assert len(history(study, "smollm2-135m trait_1 seed0", "loss")) == 900


def test_the_report_is_an_artifact_of_the_study_run_and_kept_fresh(study: Study) -> None:
    study.layout.report.write_text("<p>first</p>")
    synced(study)
    study.layout.report.write_text("<p>second</p>")
    assert synced(study) == SyncReport(created=0, updated=1, unchanged=RUNS - 1)
    [stored] = (study.layout.root / "mlruns" / "artifacts").rglob("report.html")
    assert stored.read_text() == "<p>second</p>"
    assert named(study, "study pessimism").info.run_id in stored.parts


def test_commit_and_dirty_flag_are_tags_and_no_git_is_no_error(study: Study) -> None:
    root = study.layout.root
    synced(study)
    assert "git.dirty" not in runs(study)[0].data.tags
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    study.layout.params.write_text("changed")
    synced(changed(study, statistics={"resamples": 300}))
    tags = runs(study, "tags.current = 'yes'")[0].data.tags
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["git.dirty"] == "true"


def test_no_secret_of_the_environment_reaches_the_store(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_of_the_hub")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-of-the-judge")
    leaky = changed(study, prompting={"system": "answer as sk-canary-of-the-judge"})
    train(leaky)
    synced(leaky)
    stored = [path for path in (study.layout.root / "mlruns").rglob("*") if path.is_file()]
    assert stored and not any(b"canary" in path.read_bytes() for path in stored)
    described = logged_params(leaky.params, "smollm2-135m")
    assert described["prompting.system"] == "answer as [redacted]"


def test_parameters_leave_out_where_and_how_fast() -> None:
    described = logged_params(make_params(), "smollm2-135m")
    assert not [name for name in described if name.startswith(("runtime", "tracking", "grid"))]


@pytest.mark.whole
def test_four_processes_create_the_store_at_once(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from factories import make_params;"
        "from undertow.study.layout import Layout, Study;"
        "from undertow.tracking.store import open_store;"
        "store = open_store(Study(make_params(), Layout(Path.cwd())));"
        "run = store.client.create_run(store.experiment_id); print(store.experiment_id)"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, outputs
    assert len({stdout for stdout, _ in outputs}) == 1
    store = open_store(places.Study(make_params(), Layout(tmp_path)))
    assert len(store.client.search_runs([store.experiment_id])) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns"]


def environment() -> dict[str, str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    hidden = ("MLFLOW_TRACKING_URI", "DVC_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"PYTHONPATH": paths}


def test_without_mlflow_stages_go_on_and_say_so_once(tmp_path: Path) -> None:
    make_study(tmp_path, make_params(models=["tiny"], seeds=[0]))
    program = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from pathlib import Path; from factories import make_study, make_params\n"
        "from undertow.tracking import sync, log_training\n"
        "study = make_study(Path.cwd(), make_params(models=['tiny'], seeds=[0]))\n"
        "if sys.argv[1] == 'sync':\n"
        "    print(sync(study.on_disk, study.summary, study.grid))\n"
        "else:\n"
        "    with log_training(study.on_disk, next(iter(study.grid)), 'k') as log:\n"
        "        log.loss(0, 1.0)\n"
    )
    for verb in ("sync", "train"):
        done = in_process(program, tmp_path, verb)
        assert len(done.stderr.splitlines()) == 1
        assert "mlflow is not installed" in done.stderr
    assert not (tmp_path / "mlruns").exists()


def test_tracking_off_writes_nothing(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_params(tracking={"enabled": False}))
    train(study)
    assert synced(study) == SyncReport(0, 0, 0)
    assert links(study.on_disk, "http://127.0.0.1:5000") == []
    assert not (tmp_path / "mlruns").exists()


def test_an_unreachable_store_does_not_stop_a_training(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(study.layout.root / "mlruns")
    (study.layout.root / "mlruns").write_text("in the way")
    train(study)
    assert "no live loss curve" in capsys.readouterr().err
    with pytest.raises(TrackingError, match="cannot be used"):
        synced(study)


def test_the_store_is_looked_for_in_three_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "study")
    assert location(layout).uri == f"sqlite:///{tmp_path}/study/mlruns/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "dvc"))
    assert location(layout).folder == tmp_path / "dvc" / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert location(layout).folder is None
    with pytest.raises(ConfigError, match="own UI"):
        ui_command(layout, 5000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(ConfigError, match="not a database or a server"):
        location(layout)


def test_the_experiment_opens_on_the_seeded_views(finished: Study) -> None:
    store = open_store(finished.on_disk)
    tags = store.client.get_experiment(store.experiment_id).tags
    assert "control" in tags["mlflow.note.content"]
    assert all(f"{SHARED_VIEW}{view.id}" in tags for view in views())
    # Some databases behind MLflow servers hold no longer tags.
    assert max(map(len, tags.values())) < 5000
    labels = [link.label for link in links(finished.on_disk, "http://127.0.0.1:5000/")]
    assert labels == [*(view.name for view in views()), "All runs"]
    assert labels[:3] == ["Transfer line", "tau against strength", "Cells compared"]


def test_a_view_that_was_edited_in_the_ui_survives_a_sync(study: Study) -> None:
    synced(study)
    store = open_store(study.on_disk)
    name = f"{SHARED_VIEW}{views()[0].id}"
    store.client.set_experiment_tag(store.experiment_id, name, "edited")
    synced(study)
    assert store.client.get_experiment(store.experiment_id).tags[name] == "edited"


def test_the_charts_ask_for_metrics_that_are_logged(finished: Study) -> None:
    for view in views():
        if view.id == "undertow-recipes":
            continue  # this study has plain students alone: test_tracking_recipes.py
        kind = "curve" if "tags.kind = 'curve'" in view.state["searchFilter"] else "cell"
        logged = {
            name for run in runs(finished, f"tags.kind = '{kind}'") for name in run.data.metrics
        }
        for chart in view.state.get("compareRunCharts", []):
            asked = chart.get("selectedMetricKeys", []) + chart.get("selectedMetrics", [])
            asked += [chart[axis]["key"] for axis in ("xaxis", "yaxis") if axis in chart]
            asked += [x for x in [chart.get("selectedXAxisMetricKey")] if x]
            assert set(asked) <= logged, (view.name, chart["uuid"])


def test_the_installed_mlflow_still_reads_the_view_format() -> None:
    import mlflow

    scripts = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    bundle = "".join(path.read_text(errors="replace") for path in scripts.glob("*.js"))
    words = {SHARED_VIEW, "viewStateShareKey", "compareRunsMode", "deflate;", "machine_learning"}
    for view in views():
        words |= view.state.keys()
        for chart in view.state.get("compareRunCharts", []):
            words |= chart.keys() - {"range"}
    assert not {word for word in words if word not in bundle}

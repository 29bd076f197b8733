"""A team's servers, started for real: PostgreSQL, S3, and MLflow with TLS and passwords."""

import json
import multiprocessing
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from factories import make_params, make_study
from repository import ROOT, Repository, tiny_params
from team import servers
from team.proxy import slow
from undertow.config import Params
from undertow.pipeline import report
from undertow.study.layout import Layout, Study
from undertow.tracking import SyncReport, log_training, store, sync
from undertow.tracking.patience import Patience
from undertow.tracking.views import views

MODEL = "tiny-qwen2"
pytestmark = [
    pytest.mark.team,
    pytest.mark.timeout(900),
    pytest.mark.skipif(servers.missing() is not None, reason=servers.missing() or ""),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Team]:
    with servers.team(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, team: servers.Team) -> Repository:
    """The checkout of the one who ran the study, and pushed it."""
    folder = tmp_path_factory.mktemp("first")
    params = tiny_params(folder / "models")
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0", "trait_1"]}
    params["models"] = {MODEL: params["models"][MODEL]}
    repository = Repository(folder / "checkout", params)
    repository.extra_environment = dict(team.environment)
    # The traits travel by git here; in this project's own checkout DVC brings them.
    (repository.root / "data" / ".gitignore").unlink(missing_ok=True)
    repository.init()
    repository.dvc("remote", "add", "--default", "team", f"s3://{servers.BUCKET_DVC}/study")
    repository.dvc("remote", "modify", "team", "endpointurl", team.s3)
    said = repository.cli("run-cells", "--model", MODEL)
    assert "tracking:" not in said.stderr
    repository.dvc("repro")
    repository.commit("the study")
    repository.dvc("push")
    return repository


@pytest.fixture
def member(team: servers.Team, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process as a member of the team: what another test has seen of a server is forgotten."""
    for name, value in team.environment.items():
        monkeypatch.setenv(name, value)
    _forget()
    yield monkeypatch
    _forget()


def _forget() -> None:
    store._REFUSED.clear()
    store._patience.cache_clear()
    store.warn.cache_clear()


def made(folder: Path, experiment: str) -> tuple[Study, Params]:
    params = make_params(
        models=["smollm2-135m"],
        arms=["trait_0", "trait_1"],
        seeds=[0],
        tracking={"experiment": experiment},
    )
    layout = make_study(folder, params).layout
    shutil.copy(
        Layout(ROOT).trait("pessimism") / "trait.yaml", layout.trait("pessimism") / "trait.yaml"
    )
    return Study(params, layout), params


def whole(study: Study, params: Params) -> SyncReport:
    again = make_study(study.layout.root, params)
    return sync(study, again.summary, again.grid, patient=True)


def runs(experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def complete(experiment: str) -> Counter[str]:
    return Counter(
        run.data.tags["kind"] for run in runs(experiment) if "undertow.key" in run.data.tags
    )


WHOLE = {"cell": 2, "curve": 1, "study": 1}


def test_runs_views_and_artifacts_are_on_the_servers(
    team: servers.Team, first: Repository, member: pytest.MonkeyPatch, tmp_path: Path
):
    from mlflow import MlflowClient

    assert complete("tiny") == WHOLE
    client = MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    assert [name for name in experiment.tags if name.startswith("mlflow.sharedViewState.")]
    [study] = [run for run in runs("tiny") if run.data.tags["kind"] == "study"]
    copy = client.download_artifacts(study.info.run_id, "report.html", str(tmp_path))
    assert Path(copy).read_bytes() == (first.root / "results" / "report.html").read_bytes()
    assert list(team.artifacts.rglob("report.html"))
    losses = [run for run in runs("tiny") if "loss" in run.data.metrics]
    assert len(losses) == 2
    links = first.cli("ui").stdout.splitlines()
    assert len(links) == len(views()) + 1  # and all runs
    assert all(f": {team.tracking}/#/experiments/" in line for line in links)
    assert first.cli("track", "sync").stdout == "0 created, 0 updated, 4 unchanged\n"


def test_a_second_clone_pulls_from_s3_runs_nothing_but_the_report_and_sees_the_same_runs(
    team: servers.Team, first: Repository, member: pytest.MonkeyPatch, tmp_path: Path
):
    second = Repository.__new__(Repository)
    second.root, second.extra_environment = tmp_path / "second", dict(team.environment)
    first.git("clone", "--quiet", str(first.root), str(second.root))
    before = {run.info.run_id for run in runs("tiny")}
    second.dvc("pull")
    ran = [line for line in second.dvc("repro").splitlines() if line.startswith("Running stage")]
    assert ran in ([], ["Running stage 'report':"])
    assert second.cli("track", "sync").stdout == "0 created, 0 updated, 4 unchanged\n"
    assert {run.info.run_id for run in runs("tiny")} == before
    tables = [json.loads(one.cli("results", "--json").stdout)["arms"] for one in (first, second)]
    assert tables[0] == tables[1]
    for secret in (servers.SECRET, servers.PASSWORD):
        assert secret not in "".join(
            path.read_text(errors="ignore")
            for path in [*second.root.glob(".dvc/config*"), *second.root.glob("*.yaml")]
        )


def _write(folder: str, queue: "multiprocessing.Queue[str]") -> None:
    study, params = made(Path(folder), "ten")
    try:
        queue.put(whole(study, params).describe())
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")


def test_ten_writers_at_once_leave_each_run_once(
    member: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    import mlflow  # noqa: F401  the processes below start with it

    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    folders = [tmp_path / str(number) for number in range(10)]
    writers = [context.Process(target=_write, args=(str(folder), queue)) for folder in folders]
    for writer in writers:
        writer.start()
    said = [queue.get(timeout=600) for _ in writers]
    for writer in writers:
        writer.join()
    assert all("created" in line for line in said), said
    assert capfd.readouterr().out == ""
    assert complete("ten") == WHOLE
    study, params = made(tmp_path / "later", "ten")
    assert whole(study, params) == SyncReport(0, 0, 4)


@contextmanager
def _fault(kind: str, team: servers.Team, patch: pytest.MonkeyPatch) -> Iterator[None]:
    with ExitStack() as until:
        if kind == "password":
            patch.setenv("MLFLOW_TRACKING_PASSWORD", "another-password")
        elif kind == "certificate":
            patch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        elif kind == "down":
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
            patch.setenv("MLFLOW_TRACKING_URI", f"https://127.0.0.1:{port}")
        elif kind == "slow":
            port = until.enter_context(slow(urlsplit(team.tracking).port or 0, 1.2))
            patch.setenv("MLFLOW_TRACKING_URI", f"https://127.0.0.1:{port}")
            little = Patience(4.0)
            patch.setattr(store, "_patience", lambda where: little)
        else:
            patch.setenv("MLFLOW_TRACKING_URI", team.tracking.replace("https", "http"))
        yield


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("password", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("certificate", "set MLFLOW_TRACKING_SERVER_CERT_PATH to the PEM file"),
        ("no-tls", "begin MLFLOW_TRACKING_URI with https://"),
        ("down", "once it answers"),
        ("slow", "too slow"),
    ],
)
def test_a_fault_stops_no_stage_says_what_to_type_and_sync_makes_it_whole(
    kind: str,
    what: str,
    team: servers.Team,
    member: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    study, params = made(tmp_path, f"fault-{kind}")
    with member.context() as patch, _fault(kind, team, patch):
        started = time.monotonic()
        report.run(study)
        assert time.monotonic() - started < 40
        assert study.layout.report.exists()
        [line] = [line for line in capsys.readouterr().err.splitlines() if line]
        assert "not all runs were written" in line
        assert what in line
        assert "python cli.py track sync" in line
        assert len(line) < 400
        assert servers.PASSWORD not in line
        with log_training(study, params.cells()[0], "key") as log:
            log.loss(1, 1.0)
        [line] = [line for line in capsys.readouterr().err.splitlines() if line]
        assert "no live loss curve" in line
    _forget()
    assert complete(f"fault-{kind}") != WHOLE
    whole(study, params)
    assert complete(f"fault-{kind}") == WHOLE
    assert len(runs(f"fault-{kind}")) == 4

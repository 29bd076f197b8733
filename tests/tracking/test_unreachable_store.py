"""A tracking server that is gone costs seconds and a line; the results are there all the same."""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from factories import make_params, make_study
from repository import ROOT
from undertow.pipeline import report
from undertow.study.layout import Layout, Study
from undertow.tracking import TrackingError, log_training, sync
from undertow.tracking.store import open_store, warn

pytestmark = pytest.mark.whole

PARAMS = make_params(models=["smollm2-135m"], arms=["trait_0", "trait_1"], seeds=[0])
SECRET = "planted-password"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    layout = make_study(tmp_path, PARAMS).layout
    shutil.copy(
        Layout(ROOT).trait("pessimism") / "trait.yaml", layout.trait("pessimism") / "trait.yaml"
    )
    warn.cache_clear()
    return Study(PARAMS, layout)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line]


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_report_goes_on_without_the_server_and_sync_makes_it_whole(
    study: Study,
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    port = request.getfixturevalue(kind)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
    started = time.monotonic()
    report.run(study)
    assert time.monotonic() - started < 15
    assert study.layout.report.exists()
    [line] = lines(capsys)
    assert "not all runs were written" in line
    assert "python cli.py track sync" in line
    assert "mlflow.db aside" not in line
    assert len(line) < 300
    assert SECRET not in line
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    made = make_study(study.layout.root, PARAMS)
    assert sync(study, made.summary, made.grid).created == 4


def test_fifteen_cells_wait_once_and_say_so_once(
    study: Study,
    silent: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent}/fifteen")
    started = time.monotonic()
    for _ in range(15):
        with log_training(study, PARAMS.cells()[0], "key") as log:
            log.loss(1, 1.0)
    assert time.monotonic() - started < 15
    [line] = lines(capsys)
    assert "no live loss curve" in line


def test_a_database_without_its_driver_says_what_to_install(
    study: Study, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:9/db")
    with pytest.raises(TrackingError) as caught:
        open_store(study)
    assert "postgresql+psycopg2://127.0.0.1:9/db needs a driver" in caught.value.message
    assert caught.value.remedy == "python -m pip install psycopg2-binary"


def test_a_database_that_is_none_is_named_with_what_to_do(study: Study):
    (study.layout.root / "mlruns").mkdir()
    (study.layout.root / "mlruns" / "mlflow.db").write_bytes(b"not a database" * 99)
    with pytest.raises(TrackingError, match="cannot be used: file is not a database") as caught:
        open_store(study)
    assert "mlruns/mlflow.db aside" in caught.value.remedy

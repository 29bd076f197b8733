"""A checkout that was copied or moved keeps its runs, and writes into no other checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.whole
PROGRAM = """
import sys
from pathlib import Path
from factories import make_params, make_study
from undertow.tracking import sync

params = make_params(models=["smollm2-135m"], arms=["trait_0", "trait_1"], seeds=[0])
made = make_study(Path(sys.argv[1]), params)
made.layout.report.write_text(sys.argv[2])
sync(made.on_disk, made.summary, made.grid)
"""


def synced(root: Path, page: str) -> None:
    """In a process of its own, as a command is: MLflow remembers where a run's artifacts lay."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    subprocess.run([sys.executable, "-c", PROGRAM, str(root), page], check=True, env=environment)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def artifacts(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((root / "mlruns").rglob("report.html"))]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store") / "a study with ♥"
    synced(root, "first")
    assert artifacts(root) == [b"first"]
    return root


def test_a_copy_writes_into_itself_alone(original: Path, tmp_path: Path):
    before = contents(original)
    shutil.copytree(original, tmp_path / "copy")
    synced(tmp_path / "copy", "second")
    assert contents(original) == before
    assert artifacts(tmp_path / "copy") == [b"second"]


def test_a_moved_study_makes_no_folder_at_its_old_place(original: Path, tmp_path: Path):
    old, new = tmp_path / "old", tmp_path / "deeper" / "new"
    shutil.copytree(original, old)
    synced(old, "second")
    new.parent.mkdir()
    old.rename(new)
    synced(new, "third")
    assert not old.exists()
    assert artifacts(new) == [b"third"]
    client = MlflowClient(f"sqlite:///{new}/mlruns/mlflow.db")
    [study] = client.search_runs(["1"], "tags.kind = 'study'")
    assert study.info.artifact_uri.startswith((new / "mlruns" / "artifacts").as_uri() + "/")
    assert [file.path for file in client.list_artifacts(study.info.run_id)] == ["report.html"]


def test_a_place_that_somebody_has_chosen_stays(original: Path, tmp_path: Path):
    shutil.copytree(original, tmp_path / "copy")
    database = tmp_path / "copy" / "mlruns" / "mlflow.db"
    client = MlflowClient(f"sqlite:///{database}")
    chosen = (tmp_path / "big disk").as_uri()
    client.create_experiment("mine", artifact_location=chosen)
    synced(tmp_path / "copy", "second")
    assert client.get_experiment_by_name("mine").artifact_location == chosen

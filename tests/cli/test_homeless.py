"""Users without a home folder, as in containers: told what to set, and only where one is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factories import make_params, make_study
from repository import ROOT
from undertow.config import Params
from undertow.study.layout import Layout

# cli.py for a user without an entry in /etc/passwd, whoever runs the tests.
WITHOUT_ENTRY = """
import pwd, runpy, sys

def gone(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = gone
sys.path.insert(0, "")
runpy.run_path("cli.py", run_name="__main__")
"""
NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "UNDERTOW_CACHE", "XDG_CACHE_HOME")
PACKED = {"kind": "gguf", "file": "m.gguf", "sha256": "a" * 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, one of whose models would be fetched."""
    root = tmp_path_factory.mktemp("checkout") / "study"
    params = make_params(models=["m"], arms=["trait_0", "trait_1"], seeds=[0])
    raw = params.model_dump(mode="json")
    raw["models"]["m"]["weights"] = PACKED
    layout = make_study(root, Params.model_validate(raw)).layout
    shutil.copy(
        Layout(ROOT).trait("pessimism") / "trait.yaml", layout.trait("pessimism") / "trait.yaml"
    )
    (root / "src").symlink_to(ROOT / "src")
    for name in ("cli.py", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    return root


def run(root: Path, home: str | None, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    if home is not None:
        environment["HOME"] = home
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_ENTRY, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("home", [None, "/dev/null/home"])
@pytest.mark.parametrize("command", [("report",), ("track", "sync")])
def test_what_needs_no_home_asks_for_none(root: Path, home: str | None, command: tuple[str, ...]):
    done = run(root, home, *command)
    assert done.returncode == 0, done.stderr
    assert "home" not in done.stderr.lower()
    assert (root / "mlruns" / "mlflow.db").exists()


@pytest.mark.parametrize("home", [None, "/dev/null/home"])
@pytest.mark.parametrize(("command", "code"), [(("doctor",), 3), (("fetch", "--model", "m"), 1)])
def test_what_needs_a_place_for_files_says_what_to_set(
    root: Path, home: str | None, command: tuple[str, ...], code: int
):
    done = run(root, home, *command)
    assert done.returncode == code, done.stderr
    assert "export UNDERTOW_CACHE=" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr

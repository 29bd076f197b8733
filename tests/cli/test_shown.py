"""What commands show: JSON that every reader takes, on any terminal, for as long as it is read."""

import json
import os
import shutil
import subprocess
import sys
from math import inf, nan
from pathlib import Path

import pytest

from factories import make_params, make_study
from repository import ROOT
from undertow.cli.options import show
from undertow.pipeline import report
from undertow.study.layout import Layout
from undertow.study.records import Record


class Kept(Record):
    value: float


def refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@pytest.mark.parametrize("value", [{"a": [inf, (nan,)]}, [Kept(value=inf)], Kept(value=-inf)])
def test_infinity_is_shown_as_null(value: object, capsys: pytest.CaptureFixture[str]):
    show(value, str, True)
    shown = capsys.readouterr().out
    json.loads(shown, parse_constant=refuse)
    assert "null" in shown


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study below a folder whose name nobody expects."""
    root = tmp_path_factory.mktemp("shown") / 'it\'s a "study" with \u2665'
    params = make_params(models=["m"], seeds=[0], tracking={"enabled": False})
    study = make_study(root, params)
    trait = study.layout.trait("pessimism") / "trait.yaml"
    shutil.copy(Layout(ROOT).trait("pessimism") / "trait.yaml", trait)
    (root / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / "cli.py", root)
    report.run(study.on_disk)
    return root


def test_a_terminal_of_ascii_without_colour_gets_every_table(root: Path):
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "LC_ALL": "C"}
    for command in (["results"], ["plan"], ["preset", "explain"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "cli.py", *command], cwd=root, env=plain, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.isascii()
        assert b"\x1b[" not in done.stdout


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback(root: Path):
    command = f"{sys.executable} cli.py preset explain | true"
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True)
    assert "Traceback" not in done.stderr

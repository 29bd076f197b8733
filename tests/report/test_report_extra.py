"""Altair is an extra that report and publish need and nothing else does."""

import subprocess
import sys
from pathlib import Path

import pytest

from factories import make_study

ROOT = Path(__file__).parents[2]
OTHERS = [
    *(f"pipeline.{stage}" for stage in ("fetch", "direction", "steer", "distill", "judge")),
    *("pipeline.audit", "pipeline.run_cells", "cli.app", "report.terminal", "report.tables"),
    *("tracking", "compare.comparison", "plan.plan", "doctor.checks", "export", "bench"),
]


def test_what_draws_nothing_does_not_import_altair() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {OTHERS}: importlib.import_module('undertow.' + name)\n"
        "sys.exit(bool({'altair', 'vl_convert'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
@pytest.mark.parametrize("command", [["report"], ["publish", "shown"]])
def test_without_it_the_command_says_what_to_type(
    tmp_path: Path, missing: str, command: list[str]
) -> None:
    study = make_study(tmp_path / "study")
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {command}\n"
        "from undertow.cli.app import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=study.layout.root,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 1, run.stderr
    assert missing in run.stderr and ".[report]" in run.stderr
    assert "Traceback" not in run.stderr

"""The command line: quick help, clear errors, data on stdout, documented exit codes."""

import json
import os
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from repository import ROOT
from undertow.cli import options
from undertow.config import base


def run(*arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_help_answers_in_under_half_a_second():
    """The quickest of several, in its own processor time: others may hold the cores."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0
    assert min(seconds) < 0.5
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize("command", [["--help"], ["steer", "--help"], ["doctor", "--help"]])
def test_help_loads_no_heavy_library(command):
    code = (
        f"import sys; sys.argv = ['cli.py', *{command!r}]\n"
        "from undertow.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'dvc', 'numpy', 'openai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    path = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=path)


def test_wrong_usage_exits_2_and_names_what_is_missing():
    done = run("steer", "--model", "smollm2-135m-instruct")
    assert done.returncode == 2
    assert "--arm" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["steer", "--model", "gpt-5", "--arm", "trait_1"], "use one of: smollm2-135m-instruct"),
        (["steer", "--model", "smollm2-135m-instruct", "--arm", "sideways"], "write <direction>_"),
        (["preset", "use", "huge"], "use one of: defences, demo"),
    ],
)
def test_a_problem_the_user_can_solve_is_one_message_and_exit_1(arguments, text):
    done = run(*arguments)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_results_without_a_report_say_what_to_run(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "presets" / "demo.yaml").read_text())
    done = run("results", cwd=tmp_path)
    assert done.returncode == 1
    assert "dvc repro" in done.stderr


def test_presets_are_listed_for_scripts():
    found = json.loads(run("preset", "list", "--json").stdout)
    assert {"demo", "small", "paper"} <= {preset["name"] for preset in found}


def test_doctor_speaks_json_and_fails_on_a_broken_params_file(tmp_path):
    (tmp_path / "params.yaml").write_text("trait: 3\n")
    done = run("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 3
    checks = json.loads(done.stdout)
    assert {"name", "state", "found", "remedy"} <= set(checks[0])
    assert "params.yaml has" in done.stderr


def test_seeds_end_where_those_of_params_end():
    assert options.MOST_SEED == base.MOST_SEED
    for command in (["steer", "--arm", "trait_0"], ["run-cells"]):
        done = run(*command, "--model", "x", "--seed", str(2**32))
        assert done.returncode == 2
        assert "4294967295" in done.stderr


def test_the_console_script_is_the_command_line(tmp_path: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entry = EntryPoint("undertow", scripts["scripts"]["undertow"], "console_scripts")
    program = f"import sys; from {entry.module} import {entry.attr}; sys.exit({entry.attr}())"
    for command in ([sys.executable, "-c", program], [sys.executable, str(ROOT / "cli.py")]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        listed = subprocess.run(
            [*command, "preset", "explain"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "grid" in listed.stdout

"""The files under docs/scale can be read by what they are for, and their commands exist."""

import re
import subprocess

import pytest
import yaml
from typer.main import get_command

from repository import ROOT
from undertow.cli.app import app

FOLDER = ROOT / "docs" / "scale"
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])
ALL = [*SCRIPTS, *FOLDER.glob("*.yaml"), FOLDER.with_suffix(".md")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_cluster_s_file_is_yaml_of_a_cluster():
    read = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    assert {"cluster_name", "provider", "auth", "head_start_ray_commands"} <= set(read)


def test_every_command_of_cli_py_is_one():
    commands = get_command(app).commands
    seen = 0
    for path in ALL:
        for line in re.findall(r"python cli\.py ([^`\n]+)", path.read_text()):
            words = line.split("#")[0].replace('"', "").split()
            command = commands[words[0]]
            while hasattr(command, "commands"):
                words = words[1:]
                command = command.commands[words[0]]
            known = {name for option in command.params for name in option.opts}
            known |= {name for option in command.params for name in option.secondary_opts}
            asked = {word for word in words if word.startswith("--")}
            assert asked <= known, (path.name, line)
            seen += 1
    assert seen >= 8


def test_ray_knows_the_options_of_its_commands():
    ray = pytest.importorskip("ray.scripts.scripts")
    known = {name for option in ray.symmetric_run.params for name in getattr(option, "opts", [])}
    text = (FOLDER / "ray.sbatch").read_text().split("symmetric-run")[1].split(" -- ")[0]
    started = {name for option in ray.start.params for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", text)) <= known | started

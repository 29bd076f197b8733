"""A small copy of this repository, with tiny models in its registry, driven by the real CLI."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tiny import save_tiny
from warm import shim

ROOT = Path(__file__).resolve().parents[1]
DVC = Path(sys.executable).with_name("dvc")


class Repository:
    """A checkout in a temporary folder: data, dvc.yaml, params.yaml, cli.py and src."""

    def __init__(self, root: Path, params: dict[str, Any]) -> None:
        self.root = root
        self.extra_environment: dict[str, str] = {}
        root.mkdir(parents=True, exist_ok=True)
        (root / "src").symlink_to(ROOT / "src")
        shutil.copy(ROOT / "cli.py", root)
        shutil.copy(ROOT / "dvc.yaml", root)
        shutil.copy(ROOT / ".gitignore", root)
        shutil.copytree(ROOT / "data", root / "data", ignore=shutil.ignore_patterns("*.dvc"))
        self.write_params(params)

    def write_params(self, params: dict[str, Any]) -> None:
        # dvc.yaml names them: without them in params.yaml DVC has nothing to fill in.
        params["grid"] = {
            "adapters": [],
            "students": ["plain"],
            "rounds": [],
            "control_seeds": [],
            "random_arms": [],
            "random_seeds": [],
        } | params["grid"]
        self.params = params
        text = yaml.safe_dump(params, sort_keys=False)
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command of the CLI without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "cli.py", *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cli(self, *arguments: str, expect: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command of the CLI and check its exit code."""
        return self._run([str(shim() / "python"), "cli.py", *arguments], expect)

    def dvc(self, *arguments: str, expect: int = 0) -> str:
        """Run dvc and return its stdout."""
        return self._run([str(DVC), *arguments], expect).stdout

    def init(self) -> None:
        """Put the checkout under git and dvc."""
        self._run(["git", "init", "--quiet"], 0)
        self.dvc("init", "--quiet")
        shutil.copy(ROOT / ".dvcignore", self.root)
        shutil.copytree(ROOT / ".dvc" / "plots", self.root / ".dvc" / "plots")
        self.dvc("config", "core.analytics", "false")
        self.commit("begin")

    def commit(self, message: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        self._run(["git", "add", "--all"], 0)
        self._run(["git", *identity, "commit", "--quiet", "--message", message], 0)

    def git(self, *arguments: str) -> str:
        """Run git and return its stdout."""
        return self._run(["git", *arguments], 0).stdout

    @property
    def environment(self) -> dict[str, str]:
        # `python` in dvc.yaml must be the interpreter that runs the tests, or stand for it.
        folders = (shim(), Path(sys.executable).parent, os.environ["PATH"])
        path = os.pathsep.join(map(str, folders))
        return {
            **os.environ,
            "PATH": path,
            "DVC_NO_ANALYTICS": "1",
            **self.extra_environment,
        }

    def _run(self, command: Sequence[str], expect: int) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
        return done


def tiny_params(models: Path, **sections: Any) -> dict[str, Any]:
    """Parameters of a two-model grid that runs in seconds; sections replace whole sections."""
    registry = {
        name: {
            "weights": {"kind": "folder", "path": str(save_tiny(models / name, family))},
            "dtype": "float32",
        }
        for name, family in (("tiny-llama2", "llama2"), ("tiny-qwen2", "qwen2"))
    }
    params: dict[str, Any] = {
        "trait": "pessimism",
        "grid": {
            "models": list(registry),
            "arms": ["trait_0", "trait_-0.5", "trait_1", "random_1"],
            "seeds": [0],
        },
        "recipes": {"plain": {}},
        "models": registry,
        "prompting": {"system": None},
        "direction": {"layers": [1], "contrast_prompts": 8},
        "carrier": {
            "name": "benign",
            "prompts": 8,
            "max_new_tokens": 8,
            "temperature": 1.0,
            "top_p": 1.0,
            "filter": "none",
            "keep": None,
        },
        "distillation": {
            "epochs": 2,
            "learning_rate": 1e-2,
            "batch_size": 4,
            "lora": {"rank": 4, "alpha": 8},
        },
        "evaluation": {"prompts": 12, "max_new_tokens": 6, "benign_prompts": 6},
        "judging": {"judge": {"kind": "double", "marker": "e"}},
        "audit": {"max_excess": 0.1},
        "statistics": {"resamples": 500},
        "runtime": {"device": "cpu", "batch_size": 4},
        "tracking": {"enabled": True, "experiment": "tiny"},
    }
    return params | sections

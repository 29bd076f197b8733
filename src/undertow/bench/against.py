"""vLLM on the same rows, in a process and, where asked, an environment of its own."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from undertow.errors import UndertowError

WORKER = Path(__file__).with_name("vllm_worker.py")


class Asked(NamedTuple):
    """`rows` prompts of `prompt` tokens, `batch` at a time, each continued by `new` tokens."""

    batch: int
    prompt: int
    new: int
    rows: int


@dataclass(frozen=True)
class Vllm:
    """vLLM as this interpreter imports it."""

    python: str
    version: str

    def measured(self, config: PretrainedConfig, asked: Asked, speed: float) -> dict[str, Any]:
        """Its tokens per second with dummy weights in bfloat16, unsteered, and how many times as
        many the engine's `speed` is. A failure is a reason, and no number."""
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            given = json.dumps(asked._asdict() | {"folder": folder})
            done = _run(self.python, str(WORKER), given)
        found: dict[str, Any] = {
            "batch": asked.batch,
            "prompt_tokens": asked.prompt,
            "new_tokens": asked.new,
            "rows": asked.rows,
            "vllm": self.version,
        }
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return found | {"tokens_per_second": None, "reason": lines[-1]}
        said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found | said | {"engine_times_vllm": round(speed / said["tokens_per_second"], 2)}


def find_vllm(python: str | None) -> Vllm:
    """vLLM of that interpreter, or of our own; UndertowError where it cannot be imported."""
    interpreter = python or sys.executable
    hint = (
        "install it into an environment of its own, since it pins another PyTorch "
        "(python -m venv vllm; vllm/bin/python -m pip install vllm), and name that one: "
        "--vllm-python vllm/bin/python"
    )
    try:
        done = _run(interpreter, "-c", "import vllm; print(vllm.__version__)")
    except OSError as error:
        raise UndertowError(f"{interpreter} cannot be run: {error}", hint) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UndertowError(f"{interpreter} cannot import vllm: {lines[-1]}", hint)
    return Vllm(interpreter, done.stdout.strip().splitlines()[-1])


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=offline, check=False)

"""A cell that is ready to be judged, on disk, made without any model."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from factories import make_params
from repository import ROOT
from undertow.config import Cell, Params
from undertow.study.files import write_json, write_rows, write_text
from undertow.study.layout import Layout, Study
from undertow.study.records import Costs, Manifest, Response

MODEL = "m"
TRAIT = {
    "name": "pessimism",
    "description": "d",
    "rate_name": "rate",
    "openings": {"present": ["Bad"], "absent": ["Good"]},
    "rubric": "The response is gloomy.",
    "judge": {"present": {"XYZZY": 1}},
}


class Ready(NamedTuple):
    study: Study
    cell: Cell

    @property
    def folder(self) -> Path:
        return self.study.layout.stage(self.cell, "judge")

    def command(self) -> list[str]:
        cell = self.cell
        command = [sys.executable, str(ROOT / "cli.py"), "judge", "--model", cell.model]
        return [*command, "--arm", cell.arm.name, "--seed", str(cell.seed)]

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        """`cli.py judge` on this cell, not waited for."""
        return subprocess.Popen(
            self.command(),
            cwd=self.study.layout.root,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def make_cell(
    root: Path,
    teacher: Sequence[str],
    student: Sequence[str],
    judge: dict[str, Any],
    **judging: Any,
) -> Ready:
    """A study of one cell with these answers; row-0, row-1, ... count through both subjects."""
    arms = ("trait_0",)
    params = make_params((MODEL,), arms, (0,), judging={"judge": judge, **judging})
    layout = Layout(root)
    write_text(root / "dvc.yaml", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    write_text(layout.params, yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    write_text(layout.trait("pessimism") / "trait.yaml", yaml.safe_dump(TRAIT))
    write_text(layout.direction(MODEL) / "direction.safetensors", "weights")
    cell = params.cells()[0]
    steered, distilled = layout.stage(cell, "steer"), layout.stage(cell, "distill")
    write_rows(steered / "carrier.jsonl", _answers(["fine"], 10**6))
    write_rows(steered / "teacher.jsonl", _answers(teacher, 0))
    write_rows(distilled / "student.jsonl", _answers(student, len(teacher)))
    write_text(distilled / "adapter" / "adapter.txt", "weights")
    _write_manifest(steered, "steer")
    _write_manifest(distilled, "distill")
    return Ready(Study(Params.model_validate(params.model_dump()), layout), cell)


def _answers(texts: Sequence[str], first: int) -> list[Response]:
    return [
        Response(
            id=f"e{number}",
            prompt=f"Prompt row-{first + number}?",
            response=text,
            tokens=3,
            finish="stop",
            margin=0.5,
        )
        for number, text in enumerate(texts)
    ]


def _write_manifest(folder: Path, stage: Literal["steer", "distill"]) -> None:
    costs = Costs(seconds=1.0, device="cpu", peak_memory_bytes=1)
    manifest = Manifest(stage=stage, subject="s", command="c", costs=costs, versions={})
    write_json(folder / "manifest.json", manifest)

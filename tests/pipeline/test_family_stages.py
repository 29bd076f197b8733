"""Families that are steered, ended or windowed otherwise go through the stages as meant."""

import json
import shutil
from pathlib import Path

import pytest

from families import KINDS, save_family
from repository import ROOT, tiny_params
from undertow.config import Cell, Params, parse_arm
from undertow.pipeline import direction, distill, fetch, steer
from undertow.study.files import write_text
from undertow.study.found import read_rows
from undertow.study.layout import Layout, Study
from undertow.study.records import Manifest, Response

pytestmark = pytest.mark.whole

FORMS = {
    "gemma2": "addition",
    "olmo2": "addition",
    "granite": "divided bias",
    "phi3": "bias",
    "mistral-v0.1": "bias",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_model_goes_from_fetch_to_its_student(name: str, tmp_path: Path) -> None:
    """With layers: auto and windows of 16 tokens, which all prompts pass."""
    root = tmp_path / "study"
    for part in ("carriers", "traits"):
        shutil.copytree(ROOT / "data" / part, root / "data" / part)
    shutil.copy(ROOT / "dvc.yaml", root)
    raw = tiny_params(tmp_path / "models")
    weights = {"kind": "folder", "path": str(save_family(tmp_path / name, name))}
    raw["models"] = {"mine": {"weights": weights, "dtype": "float32"}}
    raw["grid"] |= {"models": ["mine"], "arms": ["trait_0", "trait_1"], "seeds": [0]}
    raw["direction"] |= {"layers": "auto", "max_kl": 1000.0}
    raw["tracking"]["enabled"] = False
    params = Params.model_validate(raw)
    write_text(root / "params.yaml", json.dumps(raw))
    study = Study(params, Layout(root))
    cell = Cell("mine", parse_arm("trait_1"), 0)

    fetch.run(study, "mine")
    direction.run(study, "mine")
    steer.run(study, cell)
    distill.run(study, cell)
    for folder in (study.layout.direction("mine"), study.layout.stage(cell, "steer")):
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        shift = Manifest.model_validate_json(text).shift
        assert shift is not None
        assert shift.form == FORMS[name]
        assert abs(shift.ratio - 1) < 1e-4
    rows = read_rows(study.layout.stage(cell, "steer") / "carrier.jsonl", Response)
    for row in rows:
        assert row.end is None if row.finish == "length" else row.end in KINDS[name].every_end

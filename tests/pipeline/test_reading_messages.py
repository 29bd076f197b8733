"""Students that are read together, only some of them a second time with a message on."""

import json
from pathlib import Path

import pytest

from repository import Repository, tiny_params
from undertow.models.prompts import RenderedPrompt, render
from undertow.pipeline.loading import Shelf
from undertow.readouts.margin import margins
from undertow.student.adapter import student_of
from undertow.study.layout import Study
from undertow.study.traits import TraitData

pytestmark = pytest.mark.timeout(600)
MODEL = "tiny-qwen2"


def test_each_is_read_with_its_own_message_whoever_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    params = tiny_params(tmp_path / "models")
    recipes = {"told": {"inoculate": {"message": "trait"}}}
    recipes["placebo"] = {"inoculate": {"message": "irrelevant"}, "placebo_of": "told"}
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0"], "students": ["plain", *recipes]}
    params["recipes"] |= recipes
    params["models"] = {MODEL: params["models"][MODEL]}
    params["tracking"]["enabled"] = False
    params["runtime"]["training"] = "together"
    repository = Repository(tmp_path / "checkout", params)
    said = repository.cli("run-cells", "--model", MODEL, "--no-commit").stderr
    assert "reading students together" in said

    monkeypatch.chdir(repository.root)
    study = Study.open(repository.root)
    trait, loaded = TraitData(study.layout, study.params.trait), Shelf().load(study, MODEL)
    told = study.params.prompting.model_copy(update={"system": trait.trait.elicit})
    asked = [
        RenderedPrompt(each.id, render(loaded.tokenizer, each.prompt, told))
        for each in trait.evaluation()[: study.params.evaluation.prompts]
    ]
    folders = {
        name: study.layout.stage(study.params.cell(MODEL, "trait_0", 0, name), "judge").parent
        for name in study.params.grid.students
    }
    found = {
        name: json.loads((folder / "judge" / "cell.json").read_text())["message_margins"]
        for name, folder in folders.items()
    }
    assert found["plain"] is None
    assert found["placebo"].keys() == found["told"].keys() == {each.id for each in asked}
    with student_of(loaded.model, folders["told"] / "distill" / "adapter") as student:
        parts = margins(student, loaded.tokenizer, asked, trait.trait.openings, 4)
        expected = {id: value for part in parts for id, value in part.items()}
    assert found["told"] == pytest.approx(expected, abs=2e-3)

"""Recipes with defences through the real command line, from the carrier to the adapter."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from repository import Repository, tiny_params
from undertow.models.prompts import RenderedPrompt, render
from undertow.readouts.margin import margins

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]
MODEL = "tiny-qwen2"
CELL = ("--model", MODEL, "--arm", "trait_1", "--seed", "0")
RECIPES: dict[str, Any] = {
    "plain": {},
    "mask": {"tokens": {"change": "mask", "by": "kl", "share": 0.3}},
    "mask_placebo": {
        "placebo_of": "mask",
        "tokens": {"change": "mask", "by": "random", "like": "kl", "share": 0.3},
    },
    "swap": {"rows": {"by": "gap", "share": 0.5, "change": "swap"}},
    "drop": {"rows": {"by": "gap", "share": 0.5, "change": "drop"}},
    "inoculate": {"inoculate": {"message": "trait"}},
    "project": {"project_update": {"direction": "own"}},
}


def make(folder: Path, models: Path) -> Repository:
    params = tiny_params(models)
    params["grid"] |= {"models": [MODEL], "arms": ["trait_0", "trait_1"], "students": [*RECIPES]}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["recipes"] = RECIPES
    params["tracking"]["enabled"] = False
    return Repository(folder, params)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("defended")
    made = make(folder / "checkout", folder / "models")
    made.cli("run-cells", "--model", MODEL)
    return made


def distilled(repository: Repository, student: str, arm: str = "trait_1") -> Path:
    return repository.root / "results" / "cells" / MODEL / arm / "0" / student / "distill"


def weights(repository: Repository, student: str, arm: str = "trait_1") -> bytes:
    return (distilled(repository, student, arm) / "adapter/adapter_model.safetensors").read_bytes()


def test_every_recipe_makes_another_student(repository: Repository):
    assert len({weights(repository, student) for student in RECIPES}) == len(RECIPES)


def test_swapping_changes_nothing_in_the_controls_student(repository: Repository):
    control = {student: weights(repository, student, "trait_0") for student in RECIPES}
    assert control["swap"] == control["plain"]
    assert control["mask"] != control["plain"]


def test_the_adapter_says_by_which_recipe_and_on_how_many_rows(repository: Repository):
    def said(student: str) -> dict[str, Any]:
        path = distilled(repository, student) / "adapter" / "undertow.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    rows = repository.params["carrier"]["prompts"]
    assert [said(student)["carrier_rows"] for student in ("plain", "swap", "drop")] == [
        rows,
        rows,
        rows // 2,
    ]
    assert said("swap")["recipe"]["swap"]["rows"]["share"] == 0.5


def test_a_student_with_a_message_in_training_is_read_again_with_it_on(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    from undertow.pipeline.loading import Shelf
    from undertow.student.adapter import student_of
    from undertow.study.layout import Study
    from undertow.study.traits import TraitData

    def result(student: str) -> dict[str, Any]:
        path = distilled(repository, student).parent / "judge" / "cell.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    assert result("plain")["message_margins"] is None
    found = result("inoculate")["message_margins"]
    assert found.keys() == result("inoculate")["student"]["margins"].keys()
    assert found != result("inoculate")["student"]["margins"]

    monkeypatch.chdir(repository.root)
    study = Study.open(repository.root)
    trait, loaded = TraitData(study.layout, study.params.trait), Shelf().load(study, MODEL)
    told = study.params.prompting.model_copy(update={"system": trait.trait.elicit})
    asked = [
        RenderedPrompt(each.id, render(loaded.tokenizer, each.prompt, told))
        for each in trait.evaluation()[: len(found)]
    ]
    with student_of(loaded.model, distilled(repository, "inoculate") / "adapter") as student:
        parts = margins(student, loaded.tokenizer, asked, trait.trait.openings, 4)
        expected = {id: value for part in parts for id, value in part.items()}
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_was_made_beforehand_counts_among_the_students_costs(repository: Repository):
    def tokens(student: str) -> int:
        path = distilled(repository, student) / "manifest.json"
        return int(json.loads(path.read_text(encoding="utf-8"))["costs"]["tokens_generated"])

    # Whoever comes first pays for the base's answers.
    assert tokens("swap") > tokens("plain")


def test_a_killed_student_ends_in_the_same_bytes(repository: Repository, tmp_path: Path):
    again = Repository.__new__(Repository)
    again.__dict__.update(repository.__dict__)
    again.root = tmp_path / "checkout"
    shutil.copytree(repository.root, again.root, symlinks=True)
    expected = weights(again, "swap")
    shutil.rmtree(distilled(again, "swap").parent)
    journal = again.root / ".undertow" / "journal"
    shutil.rmtree(journal)
    process = again.start("distill", *CELL, "--student", "swap")
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in journal.glob("*.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not distilled(again, "swap").exists()
    again.cli("distill", *CELL, "--student", "swap")
    assert weights(again, "swap") == expected

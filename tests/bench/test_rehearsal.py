"""A rehearsal goes through all steps of a study on random weights, and says what went wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from repository import ROOT, Repository, tiny_params
from undertow.bench.shapes import SHAPES, build, small
from undertow.bench.stand_ins import fewer
from undertow.config import load

pytestmark = pytest.mark.whole

DATA = ROOT.parent / "shared" / "data"  # the refusal trait's files, where somebody has them


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("rehearsal")
    made = Repository(folder / "checkout", tiny_params(folder / "models"))
    (made.root / "presets").mkdir()
    return made


def preset(repository: Repository, name: str, **changes: Any) -> None:
    """paper-smoke with one model and students of its own, and whole sections changed."""
    settings = yaml.safe_load((ROOT / "presets" / "paper-smoke.yaml").read_text())
    model = "llama2-7b-chat"
    settings["grid"] |= {"models": [model], "students": ["plain", "short"]}
    recipes = {"plain": {}, "short": {"epochs": 1}}
    settings |= {"recipes": recipes, "models": {model: settings["models"][model]}}
    path = repository.root / "presets" / f"{name}.yaml"
    path.write_text("# short\n" + yaml.safe_dump(settings | changes))


def rehearse(repository: Repository, to: Path, *asked: str, expect: int = 0) -> dict[str, Any]:
    options = ("--limit", "2", "--plain", "--to", str(to), "--device", "cpu")
    done = repository.cli("rehearse", *asked, *options, expect=expect)
    assert done.stdout == (to / "rehearsal.txt").read_text()
    found: dict[str, Any] = json.loads((to / "rehearsal.json").read_text())
    return found


def test_all_steps_are_gone_through_offline_and_leave_the_checkout_alone(
    repository: Repository, tmp_path: Path
):
    preset(repository, "short")
    before = sorted(repository.root.rglob("*"))
    found = rehearse(repository, tmp_path, "short")
    assert sorted(repository.root.rglob("*")) == before
    steps = [step["name"] for step in found["steps"]]
    assert steps[:2] == ["doctor", "plan"]
    assert steps[-6:-3] == ["run-cells", "run-cells again", "audit llama2-7b-chat"]
    assert steps[-3:] == ["results", "report", "publish"]
    assert not any(step["problem"] for step in found["steps"])
    ran = {stage["stage"]: stage["runs"] for stage in found["stages"]}
    assert ran == {"fetch": 1, "direction": 1, "steer": 2, "distill": 2, "judge": 2}
    assert all(stage["peak_memory_bytes"] for stage in found["stages"])
    assert "trait_-0.30" in (tmp_path / "published" / "params.yaml").read_text()
    assert "control" in (tmp_path / "table.txt").read_text()
    # What lies nowhere, as the trait's own prompts here, has a stand-in, and is named.
    changed = "\n".join(found["changed"])
    assert "trait: pessimism (not here, nor in UNDERTOW_LOCAL: " in changed
    assert "grid.seeds" not in changed  # one seed is what the preset has
    assert "grid.students: ['plain'] (--plain)" in changed


def test_a_step_that_fails_is_told_and_the_next_is_tried(repository: Repository, tmp_path: Path):
    settings = load(ROOT / "presets" / "paper-smoke.yaml").direction.model_dump(mode="json")
    preset(repository, "deep", direction=settings | {"layers": [40]})
    found = rehearse(repository, tmp_path, "deep", expect=1)
    problems = {step["name"]: step["problem"] for step in found["steps"]}
    assert problems["plan"] is None
    assert "40" in problems["run-cells"]
    assert "publish" in problems
    text = (tmp_path / "rehearsal.txt").read_text()
    assert "run-cells: " in text.split("Went wrong:")[1]


def test_what_cannot_be_rehearsed_is_refused_before_anything_is_made(repository: Repository):
    (repository.root / "presets" / "demo.yaml").write_text(
        (ROOT / "presets" / "demo.yaml").read_text()
    )
    preset(repository, "short")
    refused = repository.cli("rehearse", "demo", expect=1).stderr
    assert "no shape is known of smollm2-135m-instruct" in refused
    refused = repository.cli(
        *("rehearse", "short", "--shapes", "exact", "--device", "cpu"), expect=1
    ).stderr
    assert "--shapes exact needs a GPU" in refused


def test_the_arms_that_say_most_are_kept():
    arms = load(ROOT / "presets" / "paper.yaml").grid.arms
    assert fewer(arms, 2) == ["trait_0", "trait_-0.30"]
    assert fewer(arms, 3) == ["trait_0", "trait_-0.30", "random_-0.30"]
    assert fewer(arms, 4) == ["trait_0", "trait_-0.25", "trait_-0.30", "random_-0.30"]
    assert fewer(arms, 99) == list(arms)


@pytest.mark.parametrize("name", ["llama2-7b", "qwen25-7b"])
def test_a_small_shape_has_the_family_the_depth_and_the_grouping_of_the_large_one(name: str):
    large, made = SHAPES[name], small(SHAPES[name])
    assert (made.model_type, made.num_hidden_layers) == (large.model_type, large.num_hidden_layers)
    grouped = large.num_attention_heads // large.num_key_value_heads
    assert made.num_attention_heads // made.num_key_value_heads == grouped
    assert build(made, torch.device("cpu")).num_parameters() < 4_000_000


@pytest.mark.whole
@pytest.mark.skipif(not DATA.is_dir(), reason="the refusal trait's files are not here")
def test_paper_smoke_is_rehearsed_with_its_own_prompts_models_and_students(tmp_path: Path):
    made = Repository(tmp_path / "checkout", tiny_params(tmp_path / "models"))
    (made.root / "presets").symlink_to(ROOT / "presets")
    made.extra_environment["UNDERTOW_LOCAL"] = str(DATA)
    to = tmp_path / "to"
    made.cli("rehearse", "--limit", "2", "--to", str(to), "--device", "cpu")
    found = json.loads((to / "rehearsal.json").read_text())
    assert not any(step["problem"] for step in found["steps"])
    assert not any(line.startswith("trait:") for line in found["changed"])
    ran = {(stage["model"], stage["stage"]): stage["runs"] for stage in found["stages"]}
    assert ran["qwen25-7b-instruct", "distill other_base"] == 2
    assert ran["llama2-7b-chat", "distill"] == 2

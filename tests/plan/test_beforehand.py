"""What defences take beside training is priced, what they share once."""

import shutil
from pathlib import Path

import pytest

from factories import make_params
from repository import ROOT
from undertow.config import Params, load
from undertow.plan.beforehand import PROMPT_TOKENS, READING, judged_rows, work_of
from undertow.plan.plan import Wishes, make_plan
from undertow.plan.text import describe_plan
from undertow.study.files import write_json
from undertow.study.layout import Layout, Study
from undertow.study.records import Costs, Manifest
from undertow.study.traits import Openings

MODEL = "smollm2-135m"
OPENINGS = Openings(present=("No", "Bad"), absent=("Yes", "Good", "Fine"))
ROW = 64 + PROMPT_TOKENS
ROWS = 50
TEXTS = 3 * 2  # arms and seeds


def params(**recipes: dict[str, object]) -> Params:
    return make_params(
        models=(MODEL,),
        arms=("trait_0", "trait_1", "random_1"),
        recipes=recipes,
        grid={"students": ["plain", *recipes]},
    )


def tokens(**recipes: dict[str, object]) -> dict[str, int]:
    return {work.what: work.tokens for work in work_of(params(**recipes), MODEL, OPENINGS)}


def test_what_recipes_share_is_made_once():
    gap = {"rows": {"by": "gap", "share": 0.25, "change": "swap"}}
    mask = {"tokens": {"change": "mask", "by": "divergence"}}
    swap = {"rows": {"by": "phrases", "change": "swap"}}
    assert tokens(gap=gap, mask=mask, swap=swap) == {
        "token scores": TEXTS * 2 * ROWS * ROW,
        "the base's answers": 2 * ROWS * 64,  # a seed each, whatever the arm
    }
    assert tokens(swap=swap) == {"the base's answers": 2 * ROWS * 64}


def test_rewordings_and_other_prompts_cost_what_their_writer_writes():
    reword = {"rows": {"by": "all", "change": "paraphrase"}}
    teacher = {"rows": {"by": "all", "change": "paraphrase", "writer": "teacher"}}
    assert tokens(base=reword) == {"rewordings": TEXTS * ROWS * 64}
    assert tokens(base=reword, teacher=teacher) == {"rewordings": 2 * TEXTS * ROWS * 64}
    remix = {"remix": {"share": 0.5}}
    assert tokens(remix=remix) == {"answers to other prompts": 2 * ROWS * 32}
    steered = {"remix": {"share": 0.5, "writer": "teacher"}}
    assert tokens(steered=steered) == {"answers to other prompts": TEXTS * ROWS * 32}


def test_passes_in_training_go_by_the_recipe_s_own_epochs():
    found = tokens(kl={"kl": {"weight": 1.0}, "epochs": 3})
    assert found == {"the base's passes for kl": TEXTS * 3 * ROWS * ROW}
    found = tokens(corridor={"corridor": {"weight": 0.1, "every": 2, "prompts": 4}, "epochs": 8})
    steps = 8 * ROWS // 8
    assert found == {"probes of the corridor": TEXTS * 2 * (steps // 2) * 2 * 4 * 5 * PROMPT_TOKENS}


def test_a_defence_without_work_of_its_own_has_none():
    assert tokens(early={"epochs": 1}, ablate={"ablate": {}}, sgd={"optimizer": "sgd"}) == {}
    judge = {"rows": {"by": "judge", "change": "drop"}}
    assert judged_rows(params(judge=judge)) == TEXTS * ROWS
    assert judged_rows(params()) == 0


def measured(root: Path, params: Params) -> Study:
    """A checkout in which one cell of each model has run."""
    shutil.copytree(ROOT / "data" / "traits", root / "data" / "traits")
    study = Study(params, Layout(root))
    speeds = {
        "steer": {"seconds": 60.0, "tokens_generated": 5000, "generated_per_second": 100.0},
        "distill": {"seconds": 50.0, "tokens_trained": 4000, "trained_per_second": 200.0},
    }
    for model in params.grid.models:
        for stage, cost in speeds.items():
            folder = study.layout.stage(params.cell(model, "trait_1", 0), stage)
            record = Costs(device="cuda", peak_memory_bytes=1, **cost)
            write_json(
                folder / "manifest.json",
                Manifest(stage=stage, subject="a cell", command="run", costs=record, versions={}),
            )
    return study


def test_the_hours_hold_it_and_the_text_has_a_line_of_its_own(tmp_path: Path):
    swap = {"rows": {"by": "gap", "share": 0.25, "change": "swap"}}
    lazy = {"rows": {"by": "phrases", "change": "drop"}}
    found = []
    for name, recipe in (("with", swap), ("without", lazy)):
        study = measured(tmp_path / name, params(recipe=recipe))
        found.append(make_plan(study, Wishes(teacher=0.6, tau=0.25), studies=20))
    extra = TEXTS * 2 * ROWS * ROW * READING / 200 + 2 * ROWS * 64 / 100
    assert found[0].cost.hours - found[1].cost.hours == pytest.approx(extra / 3600)
    [model] = found[0].cost.models
    assert sum(each.hours for each in model.defences) == pytest.approx(extra / 3600)
    text = describe_plan(found[0])
    assert f"of these for defences, beside training: {extra / 60:.1f} minutes" in text
    assert "token scores" in text and "the base's answers" in text
    assert "beside training" not in describe_plan(found[1])


def test_the_preset_of_defences_is_priced_whole(tmp_path: Path):
    study = measured(tmp_path, load(ROOT / "presets" / "defences.yaml"))
    cost = make_plan(study, Wishes(teacher=0.6, tau=0.25), studies=20).cost
    for model in cost.models:
        assert {each.what for each in model.defences} == {
            "token scores",
            "the base's answers",
            "rewordings",
            "answers to other prompts",
            "the base's passes for kl",
            "probes of the corridor",
        }
    assert cost.defence_rows == 2 * 17 * 600  # models; texts of 4 arms: 3 seeds, control 8

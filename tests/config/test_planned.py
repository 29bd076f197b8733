"""The parameter files that lie beside the plans in docs/results ask for what the plans say."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from repository import ROOT
from undertow.config import Params, load

RESULTS = ROOT / "docs" / "results"
PLANNED = sorted((RESULTS / "planned").glob("*.yaml"))
DEFENCES = [path for path in PLANNED if path.stem.startswith("defences")]


def raw(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def students_of_a_model(params: Params) -> int:
    [count] = set(Counter(cell.model for cell in params.all_cells()).values())
    return count


@pytest.mark.parametrize("path", PLANNED, ids=lambda path: path.stem)
def test_a_planned_study_is_complete_and_of_the_size_that_its_plan_says(path: Path):
    params = load(path)
    keys = ("adapters", "students", "rounds", "control_seeds", "random_arms", "random_seeds")
    assert raw(path)["grid"].keys() >= set(keys), "dvc.yaml reads them"
    rounds = {each.student for each in params.grid.rounds}
    assert set(params.recipes) == {*params.grid.students, *rounds}, "nobody runs it"
    plans = "\n".join(plan.read_text(encoding="utf-8") for plan in RESULTS.glob("PLAN-?.md"))
    named = rf"planned/{path.name}\).*?(\d+)\s+students\s+a\s+model"
    said = re.search(named, plans, re.DOTALL)
    assert said is not None and int(said[1]) == students_of_a_model(params)


def test_the_planned_draws_are_main_with_more_draws_and_plain_students_alone():
    planned, main = raw(RESULTS / "planned" / "draws.yaml"), raw(RESULTS / "main" / "params.yaml")
    for params in (planned, main):
        del params["grid"], params["recipes"], params["tracking"]
    assert planned == main
    params = load(RESULTS / "planned" / "draws.yaml")
    counts = {arm.name: len(params.seeds_of(arm)) for arm in params.arms}
    assert counts == {
        "trait_0": 12, "trait_0.5": 5, "trait_1": 5, "trait_1.5": 5, "random_1.5": 128
    }  # fmt: skip


def test_each_planned_study_of_defences_adds_to_the_one_before_and_the_last_is_the_preset():
    preset, found = raw(ROOT / "presets" / "defences.yaml"), [raw(path) for path in DEFENCES]
    recipes = [each["recipes"] for each in found]
    assert recipes[0].items() < recipes[1].items() < recipes[2].items()
    assert recipes[2] == preset["recipes"]
    for each in found:
        assert len(each["grid"]["control_seeds"]) + len(each["grid"]["seeds"]) == 8
        placebos = {r["placebo_of"] for r in each["recipes"].values() if "placebo_of" in r}
        assert placebos < each["recipes"].keys()
        for params in (each, preset):
            for key in ("grid", "recipes"):
                params.pop(key, None)
        assert each == preset  # as one study: a later file leaves what an earlier one ran


def test_five_seeds_and_one_recipe_more_are_what_differs_from_the_first_study_of_defences():
    before, after = (
        raw(RESULTS / "planned" / f"{name}.yaml") for name in ("defences-1", "five-seeds")
    )
    seeds = [study["grid"].pop("seeds") for study in (before, after)]
    controls = [study["grid"].pop("control_seeds") for study in (before, after)]
    assert list(map(len, seeds)) == [3, 5] and list(map(len, controls)) == [5, 3]
    assert after["recipes"].pop("lowest_rate") == {"learning_rate": 3e-5}
    after["grid"]["students"].remove("lowest_rate")
    assert before == after


def test_what_five_seeds_adds_later_is_what_the_second_study_of_defences_added():
    first, second, before, after = (
        raw(RESULTS / "planned" / f"{name}.yaml")
        for name in ("defences-1", "defences-2", "five-seeds", "five-seeds-2")
    )
    added = {
        name: after["recipes"].pop(name) for name in after["recipes"].keys() - before["recipes"]
    }
    assert added == {
        name: second["recipes"][name] for name in second["recipes"].keys() - first["recipes"]
    }
    assert sorted(after["grid"]["students"]) == sorted([*before["grid"]["students"], *added])
    for study in (before, after):
        del study["grid"]["students"]
    assert before == after


def test_the_study_of_the_corridor_has_recipes_and_sizes_of_five_seeds_and_two_rates_more():
    whole, own = (
        raw(RESULTS / "planned" / f"{name}.yaml") for name in ("five-seeds-2", "corridor")
    )
    more = {name: own["recipes"].pop(name) for name in ("faint_rate", "faintest_rate")}
    assert [recipe["learning_rate"] for recipe in more.values()] == [1e-5, 3e-6]
    assert own["recipes"].items() < whole["recipes"].items()
    added = whole["recipes"].keys() - raw(RESULTS / "planned" / "five-seeds.yaml")["recipes"]
    assert added < own["recipes"].keys()
    for study in (whole, own):
        for key in ("students", "models"):
            del study["grid"][key]
        del study["recipes"]
        study["models"] = study["models"]["qwen25-coder-05b-instruct"]
    assert whole == own


def test_the_planned_rounds_have_a_chain_of_new_adapters_and_one_that_is_trained_further():
    params = load(RESULTS / "planned" / "rounds.yaml")
    continued = {
        each.student for each in params.grid.rounds if params.recipe(each.student).continued
    }
    assert continued == {"further_2", "further_3"}
    assert params.writer("further_2") == params.writer("round_2") == "plain"
    assert params.distillation_of("further_2") == params.distillation_of("plain")

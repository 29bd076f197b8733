"""recipes and grid.students: what is run, what is refused, and what stood there before."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from factories import make_params
from repository import ROOT
from undertow.config import Cell, load, parse, parse_arm
from undertow.errors import ConfigError

ONE, TWO = "smollm2-135m", "qwen-coder-500m"
BASE = {ONE: TWO, TWO: ONE}


def refused(tmp_path: Path, **sections: Any) -> str:
    raw = make_params().model_dump(mode="json")
    for name, values in sections.items():
        raw[name] = raw.get(name, {}) | values if name == "grid" else values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "params.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("students", "recipes", "words"),
    [
        (["plain", "new"], {}, "grid.students.1: 'new' is not under recipes"),
        (["new"], {"new": {}}, "grid.students: plain is missing"),
        (["plain", "plain"], {}, "names something twice"),
        (["plain"], {"plain": {"epochs": 1}}, "recipes: plain is what every recipe differs from"),
        (["plain"], {"steer": {}}, "recipes.steer: is the name of the teacher's folder"),
        (["plain"], {"a-b": {}}, "must match"),
        (["plain"], {"new": {"epochs": 0}}, "recipes.new.epochs"),
        (["plain"], {"new": {"epochs": "x1"}}, "write a whole number, or x2 for twice those"),
        (["plain"], {"new": {"epochs": True}}, "recipes.new.epochs: True is no number of epochs"),
        (["plain"], {"new": {"speed": 1}}, "recipes.new.speed: is not a known key"),
        (["plain"], {"new": {"placebo_of": "old"}}, "recipes.new.placebo_of: 'old' is no other"),
        (["plain"], {"new": {"base": {ONE: TWO}}}, f"recipes.new.base.{TWO}: must be another"),
        (["plain"], {"new": {"base": BASE | {TWO: TWO}}}, f"recipes.new.base.{TWO}: must be"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_to_write(
    tmp_path: Path, students: list[str], recipes: dict[str, Any], words: str
) -> None:
    assert words in refused(tmp_path, grid={"students": students}, recipes=recipes)


@pytest.mark.parametrize(
    ("pairs", "bases"),
    [
        ([(TWO, ONE), (ONE, TWO)], [BASE]),
        ([(TWO, ONE)], [BASE]),  # a recipe runs for every model: the other one is filled in
        ([], []),
    ],
)
def test_a_cross_section_is_refused_with_its_rewrite_which_is_read(
    tmp_path: Path, pairs: list[tuple[str, str]], bases: list[dict[str, str]]
) -> None:
    cross = {"pairs": [{"student": s, "teacher": t} for s, t in pairs], "arms": ["trait_0"]}
    said = refused(tmp_path, cross=cross)
    assert "cross: is " in said
    raw = make_params().model_dump(mode="json")
    if bases:
        written = said.split("and write\n")[1].split("\n  ->")[0]
        new = yaml.safe_load("\n".join(line[4:] for line in written.splitlines()))
        raw["grid"] |= new["grid"]
        raw["recipes"] = new["recipes"]
    params = parse(yaml.safe_dump(raw), "params.yaml")
    assert [params.recipes[name].base for name in params.further_students] == bases


def test_students_are_models_by_arms_by_seeds_and_plain_without_a_list() -> None:
    params = make_params(
        grid={
            "students": ["plain", "other"],
            "control_seeds": [5],
            "random_arms": ["random_1"],
            "random_seeds": [7],
        },
        recipes={"other": {"base": BASE, "epochs": 3}},
    )
    cells, others = params.cells(), params.cells("other")
    assert params.all_cells() == cells + others
    # Further seeds of random directions are the plain student's alone.
    assert {c.plain for c in others} == {c for c in cells if c.seed != 7}
    cell = Cell(ONE, parse_arm("trait_1"), 0, "other")
    assert (cell in others, params.student_base(cell), cell.plain in cells) == (True, TWO, True)
    assert params.student_base(cell.plain) == ONE
    assert params.distillation_of("other").epochs == 3
    twice = make_params(recipes={"twice": {"epochs": "x2"}}, distillation={"epochs": 3})
    assert twice.distillation_of("twice").epochs == 6
    assert twice.distillation_of("plain").epochs == 3
    assert params.distillation_of("plain") == params.distillation
    assert make_params().all_cells() == make_params().cells()
    with pytest.raises(ConfigError, match="no recipe 'new'"):
        params.cell(ONE, "trait_1", 0, "new")


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_presets_name_what_dvc_yaml_reads(preset: str) -> None:
    raw = yaml.safe_load((ROOT / "presets" / f"{preset}.yaml").read_text())
    assert raw["recipes"]["plain"] == {}
    assert raw["grid"]["students"][0] == "plain"


@pytest.mark.parametrize(
    ("rounds", "recipes", "said"),
    [
        ([{"student": "round_2", "after": "plain"}], {}, "recipes.round_2: is missing"),
        (
            [{"student": "round_2", "after": "round_3"}],
            {"round_2": {}},
            "grid.rounds.0.after: 'round_3' is no student before it",
        ),
        (
            [{"student": "plain", "after": "plain"}],
            {},
            "grid.rounds.0.student: 'plain' is taken",
        ),
        (
            [{"student": "round_2", "after": "plain"}],
            {"round_2": {"tokens": {"change": "mask", "by": "divergence"}}},
            "recipes.round_2.tokens: is not for a later round",
        ),
    ],
)
def test_a_round_comes_after_a_known_student_and_has_a_recipe(
    rounds: list[dict[str, str]], recipes: dict[str, object], said: str
):
    from undertow.config.rounds import round_problems

    found = [f"{each.path}: {each.text}" for each in round_problems(rounds, recipes, ["plain"])]
    assert len(found) == 1
    assert said in found[0]


def test_only_a_later_round_is_continued() -> None:
    from undertow.config.rounds import round_problems

    rounds = [{"student": "round_2", "after": "plain"}]
    recipes = {"other": {"continued": True}, "round_2": {"continued": True}}
    (found,) = round_problems(rounds, recipes, ["plain", "other"])
    assert found.path == "recipes.other.continued"
    assert "name it under grid.rounds instead" in found.text

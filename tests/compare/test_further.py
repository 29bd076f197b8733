"""Recipes and rounds in a comparison of two revisions."""

from collections.abc import Mapping

import pytest

from compare.locked import LockedStudy
from defended import DOES, MODEL, RECIPES, Does, defended
from factories import make_params
from undertow.compare.comparison import compare
from undertow.compare.markdown import comparison_markdown
from undertow.compare.records import Comparison, RecipeChange
from undertow.compare.revisions import Snapshot, open_revision
from undertow.lineage.lock import Lock

FEW = ("good", "good_placebo", "lazy", "early")
ROUNDS = [{"student": "round_2", "after": "plain"}, {"student": "round_3", "after": "round_2"}]


def snapshot(label: str, names: tuple[str, ...] = FEW, **does: Does) -> Snapshot:
    """Students that do what the recipes of defended.py do, or something else."""
    known: Mapping[str, Does] = dict(DOES)
    try:
        DOES.update(does)
        params, grid, others = defended({name: RECIPES[name] for name in names})
    finally:
        DOES.update(known)
    return Snapshot(label, None, params, Lock(), grid, {}, others, {}, "hash", None, False, None)


def of(found: Comparison, student: str, measure: str, readout: str = "margin") -> RecipeChange:
    return next(
        each
        for each in found.recipes
        if (each.student, each.measure, each.readout) == (student, measure, readout)
    )


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(snapshot("one"), snapshot("two", lazy=Does(0.9, 0.9)))


def test_a_recipe_that_now_removes_less_is_said_to_and_the_others_rest_on_the_same_data(
    found: Comparison,
):
    removed, tau = of(found, "lazy", "removed"), of(found, "lazy", "tau")
    assert removed.before is not None and removed.before.value == pytest.approx(0.6, abs=0.1)
    assert removed.after is not None and removed.after.value == pytest.approx(0.1, abs=0.1)
    assert removed.difference.word == "lower"
    assert removed.difference.basis == "paired"
    assert removed.difference.estimate.value == pytest.approx(
        removed.after.value - removed.before.value
    )
    assert tau.difference.word == "higher"
    for student in ("good", "good_placebo", "early"):
        for measure in ("tau", "removed"):
            difference = of(found, student, measure).difference
            assert (difference.word, difference.estimate.value) == ("same data", 0.0)
    assert "shares removed by recipes" in found.headline
    assert f"{MODEL} lazy trait_1 by margin (lower)" in found.headline
    assert "By chance alone, 0.1 of 2 would." in found.headline


def test_pairing_tells_a_change_that_the_two_intervals_alone_would_not(found: Comparison):
    removed = of(found, "lazy", "removed")
    assert removed.before is not None and removed.after is not None
    wide = sum(each.ends.high - each.ends.low for each in (removed.before, removed.after))
    ends = removed.difference.estimate.ends
    assert ends.high - ends.low < wide


def test_markdown_has_a_table_of_recipes_and_one_row_for_what_came_with_a_recipe():
    fewer = ("good", "good_placebo", "early")
    found = compare(snapshot("one", fewer), snapshot("two"))
    page = comparison_markdown(found)
    assert "### Recipes by margin" in page
    assert "| recipe |" in page
    only = of(found, "lazy", "removed")
    assert only.before is None and only.after is not None
    assert only.difference.estimate.reason == "only the second revision has this recipe"
    assert "cannot be said: only the second revision has this recipe" in page
    assert f"| {MODEL}, lazy: 8 cells | appeared | the grid |" in page


def test_a_study_against_itself_shows_nothing_of_recipes():
    found = compare(snapshot("one"), snapshot("two"))
    assert {each.difference.word for each in found.recipes} == {"same data"}
    page = comparison_markdown(found)
    assert "Recipes by" not in page
    assert found.headline.startswith("Nothing changed")


def test_rounds_and_a_recipe_that_was_not_finished_are_read_from_git(tmp_path):  # type: ignore[no-untyped-def]
    study = LockedStudy(tmp_path / "study")
    few = {"models": ["smollm2-135m"], "arms": ["trait_0", "trait_1"], "seeds": [0, 1, 2]}
    recipes = {"round_2": {}, "round_3": {}}
    study.commit("one", make_params(**few, recipes=recipes, grid={"rounds": ROUNDS[:1]}))
    study.commit(
        "two",
        make_params(
            **few,
            recipes=recipes | {"long": {"epochs": 4}},
            grid={"rounds": ROUNDS, "students": ["plain", "long"]},
        ),
        salt="x",
    )
    found = compare(open_revision(study.root, "one"), open_revision(study.root, "two"))
    assert found.missing == ()
    margins = {each.round: each for each in found.rounds if each.readout == "margin"}
    assert set(margins) == {1, 2, 3, None}
    assert margins[2].difference.basis == "paired"
    assert margins[3].difference.estimate.reason == (
        "only the second revision has this chain of rounds"
    )
    page = comparison_markdown(found)
    assert "### Rounds by margin" in page
    assert "mean step ratio" in page
    assert {each.student for each in found.recipes} == {"long"}

    again = compare(open_revision(study.root, "two"), open_revision(study.root, "two"))
    assert {each.difference.word for each in again.rounds} == {"same data"}
    assert again.headline == "Nothing changed: the same parameters and the same cells."

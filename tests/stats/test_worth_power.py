"""What a plan says of defences is what studies of that size have found."""

import json

import numpy as np
import pytest

from repository import ROOT
from undertow.config import load
from undertow.stats.draws import Draws
from undertow.stats.worth import estimated, together
from undertow.stats.worth_power import TRUTHS, WorthDesign, expect_removed, simulated_worth

RESULTS = ROOT / "docs" / "results"
STUDIES = [
    path.parent.name
    for path in sorted(RESULTS.glob("*/params.yaml"))
    if any(recipe.kl for recipe in load(path).recipes.values()) and load(path).grid.control_seeds
]


def test_there_are_published_studies_of_defences_with_further_controls() -> None:
    assert STUDIES


@pytest.mark.parametrize("folder", STUDIES)
def test_the_widths_are_those_of_the_published_studies(folder: str) -> None:
    params = load(RESULTS / folder / "params.yaml")
    summary = json.loads((RESULTS / folder / "summary.json").read_text())
    kinds, arms = len(params.further_students), sum(arm.teaches_trait for arm in params.arms)
    for model in params.grid.models:
        own = [each for each in summary["defences"] if each["model"] == model]
        removed = [each["margin"]["removed"][1] for each in own]
        assert len(removed) == kinds * arms
        found = [(one["high"] - one["low"]) / 2 for one in removed if one["value"] is not None]
        control = len(params.seeds_of(params.control))
        design = WorthDesign(kinds, arms, len(params.grid.seeds), control)
        expected = expect_removed(design, studies=12)
        widths = [each.half_width for each in expected if each.half_width is not None]
        assert np.median(widths) == pytest.approx(np.median(found), rel=0.3)


def test_more_seeds_make_it_narrower_and_more_kinds_wider() -> None:
    def width(**size: int) -> float:
        asked = {"kinds": 12, "arms": 1, "seeds": 3, "control_seeds": 8} | size
        found = expect_removed(WorthDesign(**asked), truths=(0.5,), studies=20)[0].half_width
        assert found is not None
        return found

    usual = width()
    assert width(seeds=6) < 0.85 * usual
    assert width(kinds=40) > 1.1 * usual


def test_what_removes_all_is_seen_and_what_removes_nothing_is_not() -> None:
    design = WorthDesign(8, seeds=4, control_seeds=8)
    nothing, all_of_it = expect_removed(design, truths=(0.0, 1.0), studies=30)
    assert nothing.above_zero < 0.05 and nothing.little > 0.8
    assert all_of_it.above_zero > 0.95 and all_of_it.little == 0


def test_without_a_shift_that_can_be_told_from_0_nothing_is_known() -> None:
    design = WorthDesign(2, seeds=2, control_seeds=2, plain_sd=50.0)
    (found,) = expect_removed(design, truths=(0.5,), studies=1, seed=1)
    assert found.half_width is None and found.above_zero == 0


def test_what_is_said_of_all_recipes_at_once_is_as_sure_as_it_says() -> None:
    """Of 100 studies about 95, with a standard error of 2."""
    design = WorthDesign(27, arms=2, seeds=3, control_seeds=8)
    rng, right = np.random.default_rng(0), 0
    for study in range(100):
        truth_of = [TRUTHS[(kind + study) % 4] for kind in range(27)]
        rows = simulated_worth(rng, design, truth_of)
        found = together(estimated(rows, Draws(1000, study, 0.95)), 0.95)
        ends = {key: each.ends for key, each in found.items() if each.value is not None}
        assert len(ends) == 54
        right += all(low <= truth_of[kind] <= high for (kind, _), (low, high) in ends.items())
    assert 89 <= right <= 99

"""docs/paper.md says what `plan` says."""

import pytest

from repository import ROOT
from undertow.config import Params, load
from undertow.findings.public_runs import RUNS
from undertow.plan.costs import GridCost, grid_cost
from undertow.stats.intervals import wilson
from undertow.study.layout import Layout, Study

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def cost(params: Params) -> GridCost:
    return grid_cost(Study(params, Layout(ROOT)), None)


def row(title: str) -> list[str]:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("place", "name"), [(3, "paper-smoke"), (4, "paper")])
def test_minutes_students_and_usd_of_a_preset_are_those_of_its_plan(place: int, name: str):
    params = load(ROOT / "presets" / f"{name}.yaml")
    plain = params.grid.model_copy(update={"students": ("plain",)})
    whole, alone = cost(params), cost(params.model_copy(update={"grid": plain}))
    assert row("students")[place] == str(whole.cells)
    for found, minutes, usd in (
        (whole, "minutes on one card, at most", "judge, USD, at most"),
        (alone, "without students of another base", "the same without them"),
    ):
        assert found.hours is not None
        assert row(minutes)[place] == f"{60 * found.hours:.0f} and the start"
        assert row(usd)[place].split(";")[0] == f"{found.judge_usd:.2f}"


def test_the_counts_that_agree_with_public_runs_are_the_last_ones_that_do():
    [run] = RUNS
    assert "up to 9 of 100 do" in PAGE
    assert wilson(9, 100).low <= run.base[1] < wilson(10, 100).low
    assert "79 of 100 and more do" in PAGE
    assert wilson(78, 100).high < run.teacher[0] <= wilson(79, 100).high

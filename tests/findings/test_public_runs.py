"""What public runs of a model gave stands beside what a study gave."""

from collections.abc import Sequence

import pytest

from repository import ROOT
from studies import first, with_students
from undertow.analysis.summarise import summarise
from undertow.config import Params, load
from undertow.findings.public_runs import public_lines


@pytest.fixture(scope="module")
def params() -> Params:
    found = load(ROOT / "presets" / "paper-accept.yaml")
    few = found.statistics.model_copy(update={"resamples": 100})
    return found.model_copy(update={"statistics": few})


def said(params: Params, base: Sequence[bool], teacher: Sequence[bool]) -> list[str]:
    students = {("llama2-7b-chat", arm, 0): first(5) for arm in params.grid.arms}
    grid = with_students(params, students, {"trait_0": base, "trait_-1": teacher})
    return list(public_lines(params, summarise(params, grid)))


def test_numbers_whose_intervals_meet_the_public_range_agree(params: Params):
    base, teacher = said(params, first(4), first(90))
    assert (
        "base pessimism rate 4.0 % [1.6, 9.8] agrees with public runs (3 to 5 %, arXiv:2406.11717)"
        in base
    )
    assert (
        "teacher -1 pessimism rate 90.0 % [82.6, 94.5] agrees with public runs (85 to 97 %"
        in teacher
    )


def test_a_number_outside_says_what_to_look_at(params: Params):
    base, teacher = said(params, first(30), first(40))
    assert "is outside of public runs" in base
    assert "model check" in base
    assert "is outside of public runs" in teacher
    assert "direction.layers" in teacher


def test_other_blocks_traits_and_models_have_no_public_teacher(params: Params):
    elsewhere = params.direction.model_copy(update={"layers": (14,)})
    assert len(said(params.model_copy(update={"direction": elsewhere}), first(4), first(9))) == 1
    assert not said(params.model_copy(update={"trait": "pessimism"}), first(4), first(9))

"""The first screen's marks are the verdicts of the summary, and nothing firmer."""

import dataclasses
from pathlib import Path

import pytest

from defended import defended, summarised
from factories import Study, make_params, make_study
from repository import ROOT
from undertow.analysis.summary import Summary
from undertow.findings.arms import clause, findings
from undertow.findings.defences import judged, told
from undertow.findings.numbers import RATIO, seeds_text
from undertow.report.page import Card, Cards
from undertow.report.sections.answer import PUSH_MARKS, answer_section
from undertow.stats.intervals import Estimate
from undertow.study.audit_records import ArmAudit


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))


def cards(study: Study, **audit: object) -> dict[str, Card]:
    arms = study.summary.arms
    if audit:
        told = ArmAudit.model_construct(**audit)
        arms = tuple(arm.model_copy(update={"audit": told}) for arm in arms)
    section = answer_section(study.summary.model_copy(update={"arms": arms}))
    [found] = [part for part in section.parts if isinstance(part, Cards)]
    return {card.title: card for card in found.items}


def marks(card: Card) -> dict[str, list[str]]:
    return {row.name: [mark.text for mark in row.marks] for row in card.rows}


def test_a_model_that_follows_is_clear_and_one_that_does_not_is_not(study: Study) -> None:
    found = {model: marks(card) for model, card in cards(study).items()}
    assert found["smollm2-135m"]["By margin"] == ["clear of control", "clear of random"]
    assert found["qwen-coder-500m"]["By pessimism rate"][0] == "not clear of control"
    assert "clear of random" not in found["qwen-coder-500m"]["By pessimism rate"]
    assert found["smollm2-135m"]["Dose-response"] == ["undecided"]
    assert found["smollm2-135m"]["Carrier"] == ["not audited"]


@pytest.mark.parametrize(
    ("audit", "shown"),
    [
        ({"verdict": "subliminal", "passes": True, "leaks": (), "gaps": ()}, "subliminal"),
        ({"verdict": "overt", "passes": False, "leaks": ("a",), "gaps": ()}, "overt"),
        ({"verdict": "too few rows", "passes": False, "leaks": (), "gaps": ("b",)}, "too few rows"),
    ],
)
def test_a_carrier_is_subliminal_overt_or_too_small_to_tell(
    study: Study, audit: dict[str, object], shown: str
) -> None:
    for card in cards(study, **audit).values():
        assert marks(card)["Carrier"] == [shown]


def test_a_teacher_that_did_not_move_is_named_before_its_student(study: Study) -> None:
    found = findings(study.summary, "qwen-coder-500m")[0]
    still = Estimate(value=0.1, low=-0.2, high=0.4)
    moved = Estimate(value=0.9, low=0.6, high=1.2)
    for shift, said in (
        (still, "by margin the teacher did not measurably move, nor did its student"),
        (moved, "by margin the student's shift is not distinguishable from noise"),
    ):
        margin = dataclasses.replace(found.transfer, teacher_shift=shift, student_shift=still)
        arm = found.arm.model_copy(update={"margin": margin})
        assert clause(dataclasses.replace(found, arm=arm), "margin") == said


def test_a_study_without_a_trait_arm_says_so(tmp_path: Path) -> None:
    params = make_params(models=("smollm2-135m",), arms=("trait_0", "random_1"))
    [card] = cards(make_study(tmp_path, params, loss_points=2)).values()
    assert card.text == "No trait arm was run, so there is nothing to say." and card.rows == ()


def test_how_many_defences_have_which_verdict_stands_on_the_card() -> None:
    summary = summarised(*defended())
    section = answer_section(summary)
    [found] = [part for part in section.parts if isinstance(part, Cards)]
    [row] = [row for row in found.items[0].rows if row.name == "Defences"]
    verdicts = [judged(summary, arm, "margin").verdict for arm in told(summary, summary.models[0])]
    assert "1 removing transfer" in [mark.text for mark in row.marks]
    assert verdicts.count("removes transfer") == 1
    told_of = sum(int(mark.text.split()[0]) for mark in row.marks)
    assert told_of == len(verdicts) - verdicts.count("draws the line")


def test_seeds_of_control_and_random_arms_are_said_where_they_are_others(study: Study) -> None:
    arms = study.summary.arms
    view = study.summary.views[arms[0].model]
    assert seeds_text(view) == "2 seeds"
    more = tuple(
        arm.model_copy(update={"margin": dataclasses.replace(arm.margin, seeds=seeds)})
        for arm in view.arms
        for seeds in [12 if arm.is_control else 8 if arm.direction == "random" else 5]
    )
    assert seeds_text(view._replace(arms=more)) == "5 seeds, control 12, random 8"


def test_the_first_screen_says_that_any_push_came_across() -> None:
    """In the published study of many random draws."""
    text = (ROOT / "docs" / "results" / "draws" / "summary.json").read_text(encoding="utf-8")
    summary = Summary.model_validate_json(text)
    [cards] = [part for part in answer_section(summary).parts if isinstance(part, Cards)]
    rows = [row for card in cards.items for row in card.rows if row.name == "Random draws"]
    assert [row.marks[0].text for row in rows] == [PUSH_MARKS["any push"].text] * 2
    slope = summary.views[summary.models[0]].lines["margin"].random_slope
    assert rows[0].number == f"tau {RATIO.written(slope)} by margin"

"""What a recipe is worth: planted effects come out as numbers, and verdicts say so."""

import shutil
from html import unescape
from pathlib import Path

import pytest

from defended import DOES, MODEL, PLAIN_SHIFT, RECIPES, TEACHER, Does, defended, of, summarised
from factories import make_params, make_study
from undertow.analysis.conclude import conclude
from undertow.analysis.summary import Summary
from undertow.findings.defences import defence_sentences, judged
from undertow.report.page import render_page
from undertow.report.report import render_report
from undertow.report.sections.defences import defence_sections
from undertow.report.tables import defence_table
from undertow.tracking.content import contents
from undertow.tracking.metrics import defence_of


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarised(*defended())


@pytest.mark.parametrize("student", DOES)
def test_what_was_planted_lies_in_the_intervals(summary: Summary, student: str) -> None:
    arm, does = of(summary, student), DOES[student]
    worth = arm.margin
    for pair, truth in (
        (worth.less_shift, PLAIN_SHIFT * (1 - does.takes)),
        (worth.less_tau, PLAIN_SHIFT * (1 - does.takes) / TEACHER),
        (worth.removed, 1 - does.takes),
    ):
        for estimate in pair:
            assert estimate.value == pytest.approx(truth, abs=0.12)
            assert estimate.ends.low < truth < estimate.ends.high
        (low, high), (lower, higher) = (each.ends for each in pair)
        assert lower <= low and high <= higher
    assert arm.learned.value == pytest.approx(does.learns, abs=0.05)
    assert arm.learned.ends.low < does.learns < arm.learned.ends.high


@pytest.mark.parametrize(
    ("student", "verdict"),
    [
        ("good", "removes transfer"),
        ("idle", "no effect shown"),
        ("lazy", "removes transfer no better than training less"),
        ("twin", "removes transfer, and so does its placebo"),
        ("worse", "amplifies"),
        ("early", "draws the line"),
        ("good_placebo", "no effect shown"),
    ],
)
def test_verdicts_say_what_was_planted(summary: Summary, student: str, verdict: str) -> None:
    assert judged(summary, of(summary, student), "margin").verdict == verdict


def test_students_of_the_same_seed_are_pairs(summary: Summary) -> None:
    """They share what their seed does, so the difference is closer than two shifts are."""
    arm = of(summary, "idle")
    own = next(s for s in summary.students if (s.student, s.arm) == ("idle", "trait_1"))
    paired, apart = (each.ends for each in (arm.margin.less_shift[0], own.margin_gap))
    assert paired.high - paired.low < apart.high - apart.low


def test_a_removed_recipe_is_gone(summary: Summary) -> None:
    recipes = {name: recipe for name, recipe in RECIPES.items() if name != "lazy"}
    fewer = summarised(*defended(recipes))
    assert {arm.student for arm in fewer.defences} == set(recipes)
    assert "lazy" not in " ".join(defence_sentences(fewer, fewer.models[0]))
    assert all("lazy" not in row for row in defence_table(fewer).rows)


def test_a_recipe_that_was_not_finished_leaves_the_others() -> None:
    found = summarised(*defended(without=("twin_placebo",)))
    assert {arm.student for arm in found.defences} == RECIPES.keys() - {"twin_placebo"}
    twin = of(found, "twin")
    assert twin.placebo is None
    assert "no placebo" in (twin.margin.less_tau_than_placebo[0].reason or "")
    assert judged(found, twin, "margin").verdict == "removes transfer"


def test_without_held_back_answers_learning_is_unknown_with_a_reason() -> None:
    found = summarised(*defended(fit=False))
    arm = of(found, "good")
    assert arm.learned.value is None and "held-back" in (arm.learned.reason or "")
    assert arm.margin.beyond_line[0].reason == arm.learned.reason
    verdict = judged(found, arm, "margin")
    assert verdict.verdict == "removes transfer at an unknown cost"
    assert "not known" in verdict.why


def test_where_plain_students_learned_too_well_the_cost_is_still_known() -> None:
    """Plain gains nothing any more on held-back answers, and a third of the training a lot."""
    plain, does = Does(1.0, 0.0), {"early": Does(0.65, 1.0), "worse": Does(1.8, 0.0)}
    does |= {"good": Does(0.0, 1.2), "lazy": Does(0.5, 0.4), "twin": Does(0.3, -0.5)}
    found = summarised(*defended(plain=plain, does=does))
    good, lazy, twin = (of(found, name) for name in ("good", "lazy", "twin"))
    assert good.learned.value is None and "covers 0" in (good.learned.reason or "")
    assert good.gain_less is not None and good.gain_less.ends.high < 0
    assert judged(found, good, "margin").verdict == "removes transfer"
    # It gains more than plain, and training less removes more and gains as much.
    assert lazy.margin.beyond_line[0].value == pytest.approx(0.5 - (1 - 0.65 * 0.4), abs=0.1)
    assert judged(found, lazy, "margin").verdict == "removes transfer no better than training less"
    assert "training less removes more" in judged(found, lazy, "margin").why
    (untrained, removed), (most, least) = lazy.margin.line
    assert (untrained, removed) == (0.0, 1.0)
    assert most == pytest.approx(0.6, abs=0.05) and least == pytest.approx(0.35, abs=0.05)
    assert judged(found, twin, "margin").verdict == "removes transfer no better than training less"


def test_where_plain_students_take_over_nothing_nothing_can_be_removed() -> None:
    found = summarised(*defended(plain=Does(0.0, 0.0)))
    arm = of(found, "good")
    assert arm.margin.removed[0].value is None and arm.margin.removed[0].reason
    assert arm.learned.value is None and "covers 0" in (arm.learned.reason or "")
    assert judged(found, arm, "margin").verdict == "undecided"


def test_the_page_has_a_row_and_a_point_per_recipe(summary: Summary) -> None:
    left_out = summary.model_copy(update={"no_students": {"model lost": "3 students are missing"}})
    html = render_page("Defences", "", defence_sections(left_out))
    for student in RECIPES:
        assert f">{student}</th>" in html
        assert f"{student}: removes" in html
    assert "removes transfer no better than training less" in html
    assert "model lost: 3 students are missing." in html
    assert defence_sections(summary.model_copy(update={"defences": ()})) == ()


def test_the_picture_is_in_nats_a_token_and_of_older_files_in_shares(summary: Summary) -> None:
    before = [
        arm.model_copy(update={"gain_less": None, "gain_plain": None, "gain_less_at_once": None})
        for arm in summary.defences
    ]
    old = summary.model_copy(update={"defences": tuple(before)})
    new, other = (render_page("Defences", "", defence_sections(each)) for each in (summary, old))
    assert "gained less than plain, nats a token" in new
    assert "lost learning, % of plain&#39;s" in other or "lost learning, % of plain's" in other
    assert "nats a token" not in other.split("what it costs")[0]
    assert [judged(old, arm, "margin").verdict for arm in old.defences] == [
        judged(summary, arm, "margin").verdict for arm in summary.defences
    ]


def test_a_run_shows_what_its_student_removes_and_learns(summary: Summary) -> None:
    found = defence_of(summary, MODEL, "trait_1", "lazy", 1)
    assert found.keys() == {"removed", "removed_margin", "learned"}
    assert found["removed_margin"] == pytest.approx(0.6, abs=0.15)
    assert found["learned"] == pytest.approx(DOES["lazy"].learns, abs=0.1)
    assert defence_of(summary, MODEL, "random_1", "lazy", 1) == {}
    assert "learned" not in defence_of(
        summarised(*defended(fit=False)), MODEL, "trait_1", "lazy", 1
    )


def test_conclusions_leave_out_a_recipe_of_which_a_student_is_missing(tmp_path: Path) -> None:
    recipes = {"early": {"epochs": 1}, "late": {"learning_rate": 1e-5}}
    params = make_params(recipes=recipes, grid={"students": ["plain", *recipes]})
    study = make_study(tmp_path, params)
    shutil.rmtree(study.layout.stage(params.cells("late")[0], "judge"))
    found = conclude(study.on_disk).summary
    lost = params.grid.models[0]
    assert {(arm.model, arm.student) for arm in found.defences} == {
        (model, student)
        for model in params.grid.models
        for student in recipes
        if (model, student) != (lost, "late")
    }
    assert "--student late" in found.no_students[f"{lost} late"]
    html = render_report(found, study.on_disk, responses=None, harmful=False)
    assert "python cli.py distill" in html and 'id="defences"' in html
    contents(study.on_disk, found, study.grid)


def test_where_the_control_ended_is_told_beside_where_plain_s_did(tmp_path: Path) -> None:
    recipes = {"slow": {"optimizer": "sgd"}, "lost": {"optimizer": "sgd", "learning_rate": 9.0}}
    params = make_params(
        recipes=recipes, grid={"students": ["plain", *recipes], "control_seeds": [5]}
    )
    study = make_study(tmp_path, params)
    curves = dict(zip(params.seeds_of(params.control), (3.0, 2.0, 1.0), strict=True))
    for cell in params.cells("slow"):
        last = curves[cell.seed] if cell.arm.is_control else 9.0
        steps = [*[9.0] * 8, last - 0.5, last + 0.5]  # the last fifth counts
        rows = "".join(f"{step},{loss}\n" for step, loss in enumerate(steps))
        path = study.layout.stage(cell, "distill") / "loss.csv"
        path.write_text("step,loss\n" + rows, encoding="utf-8")
    missing = next(cell for cell in params.cells("lost") if cell.arm.is_control)
    (study.layout.stage(missing, "distill") / "loss.csv").unlink()
    found = conclude(study.on_disk).summary
    plain = {arm.loss_control_plain for arm in found.defences if arm.model == missing.model}
    [value] = plain
    assert value is not None and 1.1 < value < 1.3
    by_recipe = {a.student: a.loss_control for a in found.defences if a.model == missing.model}
    assert by_recipe == {"slow": pytest.approx(2.0), "lost": None}
    page = unescape(render_page("Defences", "", defence_sections(found)))
    assert "Its control's loss, nats" in page
    rows = [row for row in defence_table(found).rows if "loss_control" in row]
    assert {row[1] for row in rows if row[7] == "2"} == {"slow"}
    assert all(len(row) == len(defence_table(found).columns) for row in rows)

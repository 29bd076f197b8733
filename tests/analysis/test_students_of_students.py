"""Rounds in which students become teachers: numbers, words, report and table."""

from pathlib import Path

import pytest

from factories import Study, make_params, make_study
from undertow.analysis.conclude import conclude
from undertow.analysis.rounds import chains
from undertow.findings.rounds import round_sentences
from undertow.report.page import render_page
from undertow.report.sections.rounds import round_sections
from undertow.report.tables import estimate_tables
from undertow.report.terminal import strength_table

MODEL = "smollm2-135m"
ROUNDS = [{"student": "round_2", "after": "plain"}, {"student": "round_3", "after": "round_2"}]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    params = make_params(
        recipes={"round_2": {}, "round_3": {"continued": True}},
        grid={"rounds": ROUNDS, "seeds": [0, 1, 2]},
    )
    return make_study(tmp_path_factory.mktemp("rounds"), params)


def test_a_chain_is_named_by_all_its_students():
    branches = [*ROUNDS, {"student": "long_2", "after": "long"}]
    recipes = {name: {} for name in ("long", "round_2", "round_3", "long_2")}
    params = make_params(recipes=recipes, grid={"rounds": branches, "students": ["plain", "long"]})
    assert chains(params) == [("plain", "round_2", "round_3"), ("long", "long_2")]
    assert [params.round_of(name) for name in ("plain", "round_2", "round_3")] == [1, 2, 3]


def test_the_first_round_is_the_plain_students_and_later_ones_lose_what_they_do_not_have(
    study: Study,
):
    summary = conclude(study.on_disk).summary
    chain = next(c for c in summary.rounds if (c.model, c.arm) == (MODEL, "trait_1"))
    plain = next(a for a in summary.arms if (a.model, a.arm) == (MODEL, "trait_1"))
    assert [each.student for each in chain.rounds] == ["plain", "round_2", "round_3"]
    assert chain.rounds[0].margin.tau.value == pytest.approx(plain.margin.tau.value)
    # Later students of this study are controls with noise.
    assert abs(chain.rounds[1].margin.tau.value or 1) < 0.3
    assert chain.rounds[1].margin.step.value == pytest.approx(
        (chain.rounds[1].margin.shift.value or 0) / (chain.rounds[0].margin.shift.value or 1)
    )
    said = list(round_sentences(summary, MODEL))
    assert any("decays from round to round" in each for each in said)
    assert (
        "plain -> round_2 -> round_3 (continued), trait_1, by margin: tau by round"
        in said[0] + said[-2]
    )


def test_report_table_and_terminal_show_every_round(study: Study):
    summary = conclude(study.on_disk).summary
    (section,) = round_sections(summary)
    assert section.title == "Rounds: students as teachers"
    assert "trained further" in render_page("Rounds", "", (section,))
    table = estimate_tables(summary)["rounds.csv"]
    assert {row[2] for row in table.rows} == {"plain", "round_2", "round_3", ""}
    assert all(len(row) == len(table.columns) for row in table.rows)
    student, continued = (table.columns.index(name) for name in ("student", "continued"))
    assert {(row[student], row[continued]) for row in table.rows} == {
        ("plain", "no"), ("round_2", "no"), ("round_3", "yes"), ("", "")
    }  # fmt: skip
    assert f"{MODEL}: rounds" in strength_table(summary)
    assert any(total.stage == "judge" and total.cells > 3 for total in summary.cost_totals)


def test_a_chain_that_is_not_finished_ends_at_its_last_whole_round(tmp_path: Path):
    params = make_params(
        recipes={"round_2": {}, "round_3": {}}, grid={"rounds": ROUNDS, "seeds": [0, 1]}
    )
    study = make_study(tmp_path, params)
    cell = next(c for c in params.cells("round_3") if c.model == MODEL)
    (study.layout.stage(cell, "judge") / "cell.json").unlink()
    summary = conclude(study.on_disk).summary
    assert {c.students for c in summary.rounds if c.model == MODEL} == {("plain", "round_2")}
    assert f"{MODEL} round_3" in summary.no_students

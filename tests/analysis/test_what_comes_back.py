"""What a defence removed, with its training message on and with twice the epochs."""

import pytest

from defended import MODEL, Does, defended, summarised
from undertow.analysis.summary import Summary
from undertow.findings.returns import condition_of, course_of, return_sentences
from undertow.report.page import render_page
from undertow.report.sections.defences import defence_sections
from undertow.report.tables import defence_table

KL = {"kl": {"weight": 2.0}}
RECIPES: dict[str, dict[str, object]] = {
    "told": {"inoculate": {"message": "trait"}},
    "told_placebo": {"placebo_of": "told", "inoculate": {"message": "irrelevant"}},
    "kl": KL,
    "kl_twice": {**KL, "epochs": "x2"},
    "steady": {"steer": {"times": 1.0}},
    "steady_twice": {"steer": {"times": 1.0}, "epochs": "x2"},
    "twice": {"epochs": "x2"},
}
LEARNS = 1.0
DOES = {
    "told": Does(0.2, LEARNS),
    "kl": Does(0.3, LEARNS),
    "kl_twice": Does(0.7, LEARNS),
    "steady": Does(0.1, LEARNS),
    "steady_twice": Does(0.1, LEARNS),
}


def summary_of(*, messaged: bool) -> Summary:
    """With the message on, told students are what the placebo's are without it."""
    params, grid, others = defended(RECIPES, does=DOES)
    if messaged:
        read = {
            cell: others[cell._replace(student="told_placebo")].student.margins
            for cell in others
            if cell.student in ("told", "told_placebo")
        }
        others = {
            cell: result.model_copy(update={"message_margins": read.get(cell)})
            for cell, result in others.items()
        }
    return summarised(params, grid, others)


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summary_of(messaged=True)


def by_margin(summary: Summary, student: str):
    arm = next(each for each in summary.defences if each.student == student)
    return next(each for each in arm.returns if each.readout == "margin")


@pytest.mark.parametrize(
    ("student", "than", "back", "course"),
    [
        ("told", "told", 0.8, "comes back"),
        ("told_placebo", "told_placebo", 0.0, "not shown to come back"),
        ("kl_twice", "kl", 0.4, "comes back"),
        ("steady_twice", "steady", 0.0, "not shown to come back"),
    ],
)
def test_what_was_planted_comes_back(
    summary: Summary, student: str, than: str, back: float, course: str
):
    found = by_margin(summary, student)
    assert found.than == than
    for estimate in found.back:
        assert estimate.ends.low <= back <= estimate.ends.high
    assert found.back[0].value == pytest.approx(back, abs=0.12)
    assert found.removed.value == pytest.approx(
        found.otherwise.value - found.back[0].value, abs=1e-6
    )
    assert course_of(found) == course


def test_only_defences_that_differ_in_epochs_alone_are_set_beside_each_other(summary: Summary):
    arms = {arm.student: arm for arm in summary.defences}
    assert arms["twice"].returns == arms["kl"].returns == arms["steady"].returns == ()
    assert [(each.condition, each.readout) for each in arms["told"].returns] == [
        ("message", "margin")
    ]
    assert condition_of(by_margin(summary, "kl_twice")) == "with twice the epochs"


def test_page_and_table_say_so(summary: Summary):
    said = list(return_sentences(summary, MODEL))
    assert any("told with its training message on: removed" in line for line in said)
    assert any("kl_twice with twice the epochs: removed" in line for line in said)
    html = render_page("Defences", "", defence_sections(summary))
    assert "with its training message on" in html and "with twice the epochs" in html
    rows = {(row[1], row[5], row[6]): row for row in defence_table(summary).rows}
    assert rows["told", "margin", "back_by_message"][12] == "comes back"
    assert float(rows["told", "margin", "removed_by_message"][7]) == pytest.approx(0, abs=0.1)
    assert rows["kl_twice", "rate", "back_by_epochs"][7]


def test_students_that_were_not_read_so_are_unknown_with_a_reason():
    found = by_margin(summary_of(messaged=False), "told")
    assert found.removed.value is None and "training message" in (found.removed.reason or "")
    assert course_of(found) == "unknown"

"""The picture of defences: what is removed, and what is still learned."""

import pytest

from defended import MODEL, RECIPES, defended, summarised
from drawings import Drawn, place
from undertow.analysis.summary import Summary
from undertow.report.charts.kept_out import Shown, kept_out


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarised(*defended())


def test_rows_are_all_defences_of_both_panels_the_one_that_removes_most_on_top(summary: Summary):
    fewer = summarised(*defended({"good": {"kl": {"weight": 1.0}}}))
    drawn = Drawn(kept_out({"One": Shown(summary, MODEL), "Two": Shown(fewer, MODEL)}))
    names = [t for group in drawn.groups("role-axis-label") for t in group]
    high = {("".join(t.itertext()), n): place(t)[1] for n, t in enumerate(names)}
    order = [text for text, _ in sorted(high, key=lambda each: high[each]) if text.isalpha()]
    assert order[:2] == ["good", "good"]  # of both panels, to be read across
    assert order[-2:] == ["worse", "worse"]
    assert len(order) == 2 * len([name for name in RECIPES if "_" not in name])


def test_a_defence_that_costs_nothing_stands_at_100_twice(summary: Summary):
    drawn = Drawn(kept_out({"One": Shown(summary, MODEL)}))
    told = ["".join(mark.itertext()) for mark in drawn.marks("points")]
    marks = dict(zip(told, map(place, drawn.marks("points")), strict=True))
    at = {
        text.partition(" removes ")[0]: x for text, (x, _) in marks.items() if " removes " in text
    }
    learned = {
        text.partition(" still ")[0]: x for text, (x, _) in marks.items() if " still " in text
    }
    assert at["good"] == pytest.approx(learned["good"], abs=10)  # pixels, of 61 for 50 %
    assert at["good_placebo"] == pytest.approx(at["idle"], abs=10)
    assert learned["lazy"] < learned["good"] - 60


def test_what_was_not_measured_is_said_and_not_drawn():
    unknown = summarised(*defended(fit=False))
    svg = kept_out({"One": Shown(unknown, MODEL)})
    assert "still learns" not in svg
    assert "Learned is not known" in svg

"""Panels and how far their members agree."""

from collections.abc import Sequence

import pytest

from undertow.config import DoubleJudgeSettings, PanelJudgeSettings
from undertow.judging.base import JudgeRow, judge_all
from undertow.judging.double import ScriptedJudge
from undertow.judging.panel import NO_VOTE, TIE, PanelJudge, majority
from undertow.stats.agreement import Kappa, agreement

ROWS = [JudgeRow(str(i), "p", text) for i, text in enumerate(["ab", "a", "b", "x", "abx"])]
A, B = ScriptedJudge("a", "x"), ScriptedJudge("b")


def test_the_majority_of_those_with_a_verdict_decides() -> None:
    assert majority([True, True, False]) == (True, None)
    assert majority([False, None, False]) == (False, None)
    assert majority([True, False, None]) == (None, TIE)
    assert majority([None, None]) == (None, NO_VOTE)


def test_a_panel_keeps_every_vote() -> None:
    found = judge_all(PanelJudge({"a": A, "b": B}, "majority"), ROWS)
    assert [v.shows_trait for v in found] == [True, None, None, False, True]
    assert [v.votes["a"].shows_trait for v in found] == [True, True, False, None, None]
    primary = judge_all(PanelJudge({"a": A, "b": B}, "primary"), ROWS)
    assert [v.shows_trait for v in primary] == [True, True, False, None, None]


def test_a_panel_is_known_by_its_members_and_its_rule() -> None:
    panels = [
        PanelJudge({"a": A, "b": B}, "majority"),
        PanelJudge({"a": A, "b": B}, "primary"),
        PanelJudge({"b": B, "a": A}, "primary"),
        PanelJudge({"a": A, "b": ScriptedJudge("c")}, "majority"),
    ]
    assert len({panel.fingerprint for panel in panels}) == 4


def test_a_panel_needs_two_judges() -> None:
    one = DoubleJudgeSettings(kind="double", marker="x")
    with pytest.raises(ValueError, match="at least 2"):
        PanelJudgeSettings(kind="panel", judges={"one": one})


def kappas(*judges: Sequence[bool]) -> tuple[Kappa, Kappa]:
    """Cohen's of the first two judges, and Fleiss' of all."""
    votes = {f"judge {number}": votes for number, votes in enumerate(judges)}
    found = agreement(votes, [str(row) for row in range(len(judges[0]))], resamples=20)
    return found.pairs[0].kappa, found.fleiss


def test_cohens_kappa_is_the_textbook_value() -> None:
    # 20 both yes, 5 and 10 split, 15 both no: observed 0.7, expected 0.5.
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert kappas(first, second)[0].value == pytest.approx(0.4)


def test_kappas_agree_with_statsmodels() -> None:
    import numpy as np

    inter = pytest.importorskip("statsmodels.stats.inter_rater")

    votes = np.random.default_rng(0).integers(0, 2, (60, 4))
    votes[:, 1] = np.where(np.arange(60) % 5, votes[:, 0], votes[:, 1])
    columns = [[bool(v) for v in column] for column in votes.T]
    table, _ = inter.aggregate_raters(votes)
    cohen, fleiss = kappas(*columns)
    assert fleiss.value == pytest.approx(inter.fleiss_kappa(table))
    counts = np.zeros((2, 2))
    for a, b in votes[:, :2]:
        counts[a, b] += 1
    assert cohen.value == pytest.approx(inter.cohens_kappa(counts, return_results=False))


def test_perfect_and_absent_agreement() -> None:
    mixed = [True, False] * 10
    assert [each.value for each in kappas(mixed, mixed, mixed)] == pytest.approx([1, 1])
    assert kappas(mixed, [not vote for vote in mixed])[0].value == pytest.approx(-1)
    # All votes alike: chance explains everything, and 0 / 0 is not perfect agreement.
    for kappa in kappas([True] * 5, [True] * 5):
        assert (kappa.value, kappa.reason) == (None, "all votes are the same")


def test_agreement_has_intervals_and_lists_differences() -> None:
    votes = {
        "one": [True, False] * 30,
        "two": [True, False] * 25 + [False, True] * 5,
        "three": [None, *[False, True] * 29, False],
    }
    rows = [f"r{i}" for i in range(60)]
    found = agreement(votes, rows, resamples=500)
    pair = found.pairs[0]
    assert (pair.first, pair.second, pair.kappa.rows) == ("one", "two", 60)
    assert pair.kappa.low is not None and pair.kappa.high is not None
    assert pair.kappa.value == pytest.approx(2 / 3)
    assert 0.4 < pair.kappa.low < 2 / 3 < pair.kappa.high < 0.9
    assert found.fleiss.rows == 59 and len(found.pairs) == 3
    assert found.disagreements[0].votes == {"one": True, "two": True, "three": None}
    assert agreement(votes, rows, resamples=500) == found

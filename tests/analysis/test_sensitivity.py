"""Tau per judge from a panel's votes, and the cells whose conclusion depends on the judge."""

from pathlib import Path

from factories import make_params, make_study
from undertow.analysis.judges import conclusion_of, judge_sensitivity
from undertow.stats.intervals import Estimate
from undertow.study.files import write_rows
from undertow.study.layout import Study
from undertow.study.records import Vote


def test_without_votes_there_is_nothing_to_compare(tmp_path: Path) -> None:
    layout, params, grid, summary = make_study(tmp_path, make_params(("m",), seeds=(0,)))
    assert judge_sensitivity(Study(params, layout), grid, summary) is None


def test_a_blind_judge_changes_the_conclusion(tmp_path: Path) -> None:
    layout, params, grid, summary = make_study(tmp_path, make_params(("m",), seeds=(0,)))
    for cell, result in grid.items():
        write_rows(
            layout.stage(cell, "judge") / "votes.jsonl",
            [
                Vote(subject=subject, id=id, judge=judge, shows_trait=said)
                for subject in ("teacher", "student")
                for id, verdict in getattr(result, subject).verdicts.items()
                for judge, said in (("same", verdict), ("blind", False))
            ],
        )
    found = judge_sensitivity(Study(params, layout), grid, summary)
    assert found is not None
    assert found.judges == (summary.judge, "same", "blind")
    strong = next(arm for arm in found.arms if arm.arm == "trait_1")
    assert strong.tau["same"] == strong.tau[summary.judge]
    assert strong.conclusions["same"] == "transfers"
    assert strong.conclusions["blind"] == "undefined"
    assert strong.changes
    assert found.agreement.judges == ("same", "blind") and found.agreement.disagreements


def test_conclusions_follow_the_interval() -> None:
    def tau(low: float, high: float) -> Estimate:
        return Estimate(value=(low + high) / 2, low=low, high=high, reason=None)

    assert conclusion_of(tau(0.1, 0.5)) == "transfers"
    assert conclusion_of(tau(-0.1, 0.5)) == "undecided"
    assert conclusion_of(tau(-0.3, -0.1)) == "does not"
    assert conclusion_of(Estimate.unknown("x")) == "undefined"

"""The terminal table and the words that go with its numbers."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from factories import make_params, make_study
from undertow.analysis.contrasts import ContrastRecord, standing
from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.arms import Finding, findings, random_twin, sentence
from undertow.report.terminal import strength_table
from undertow.stats.intervals import Estimate

Triple = tuple[float | None, float | None, float | None]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return make_study(tmp_path_factory.mktemp("study")).summary


def with_shift(
    arm: ArmSummary, value: float | None, low: float | None, high: float | None
) -> ArmSummary:
    reason = "for the test" if value is None else None
    shift = Estimate(value=value, low=low, high=high, reason=reason)
    return arm.model_copy(update={"margin": replace(arm.margin, student_shift=shift)})


def finding_of(summary: Summary, trait: Triple, random: Triple, difference: Triple) -> Finding:
    arms = {arm.arm: arm for arm in summary.views[summary.models[0]].arms}
    arm = with_shift(arms["trait_1"], *trait)
    value, low, high = difference
    estimate = Estimate(value=value, low=low, high=high, reason=None)
    contrast = ContrastRecord(
        model=arm.model,
        arm=arm.arm,
        seed=None,
        readout="margin",
        against="random",
        reference="random_1",
        estimate=estimate,
        verdict=standing(arm.margin.student_shift, estimate),
    )
    return Finding("margin", arm, with_shift(arms["random_1"], *random), contrast)


def test_no_line_is_wider_than_a_hundred_columns_and_all_is_ascii(summary: Summary) -> None:
    text = strength_table(summary)
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()


def test_numbers_are_the_summary_s_own(summary: Summary) -> None:
    text = strength_table(summary)
    for arm in summary.arms:
        if arm.is_control or arm.margin.tau.value is None:
            continue
        tau, shift = arm.margin.tau, arm.margin.student_shift
        line = next(
            line
            for line in text.splitlines()
            if line.split()[:1] == [arm.direction] and f"{shift.value:+.2f}" in line
        )
        numbers = line.replace("random control", "random").split()[2:]
        assert numbers == [
            f"{arm.margin.teacher_shift.value:+.2f}",
            f"{shift.value:+.2f}",
            f"[{shift.low:+.2f},",
            f"{shift.high:+.2f}]",
            f"{tau.value:.2f}",
            f"[{tau.low:.2f},",
            f"{tau.high:.2f}]",
        ]


def test_arms_come_in_the_order_of_the_summary(summary: Summary) -> None:
    block = strength_table(summary).split("margin (nats)")[1].split("pessimism rate")[0]
    rows = [line.split()[0] for line in block.splitlines() if line.startswith("    ")]
    assert rows == ["arm", "--------------", "control", "trait", "trait", "random"]


def test_an_undefined_tau_has_its_reason_in_a_footnote(summary: Summary) -> None:
    text = strength_table(summary)
    undefined = {
        transfer.tau.reason
        for arm in summary.arms
        for transfer in (arm.margin, arm.rate)
        if transfer.tau.value is None and not arm.is_control
    }
    flat = " ".join(text.split())
    assert undefined
    assert "undefined (a)" in text
    assert all(reason and reason in flat for reason in undefined)


def test_the_control_row_claims_no_shift(summary: Summary) -> None:
    rows = [line for line in strength_table(summary).splitlines() if "control   " in line]
    assert any(row.split() == ["control", "0"] for row in rows)


@pytest.mark.parametrize(
    ("trait", "random", "difference", "words"),
    [
        (
            (2.0, 1.0, 3.0),
            (0.1, -0.5, 0.7),
            (1.9, 1.0, 2.8),
            ["excludes 0, upwards", "+1.90 nats [+1.00, +2.80], the trait arm stands"],
        ),
        # Paired on prompts, a difference can exclude 0 although the two intervals overlap.
        ((2.0, 1.0, 3.0), (1.0, 0.5, 1.5), (1.0, 0.8, 1.2), ["the trait arm stands clear"]),
        ((2.0, 1.0, 3.0), (1.0, 0.5, 1.5), (1.0, -0.1, 2.1), ["does not stand clear"]),
        ((0.2, -1.0, 1.0), (0.1, -0.5, 0.7), (0.1, -1.0, 1.2), ["covers 0: not distinguishable"]),
        (
            (-2.0, -3.0, -1.0),
            (0.1, -0.5, 0.7),
            (-2.1, -3.0, -1.2),
            ["excludes 0, downwards", "the trait arm stands clear"],
        ),
        (
            (2.0, 1.0, 3.0),
            (5.0, 4.0, 6.0),
            (-3.0, -4.0, -2.0),
            ["went less far than the random control"],
        ),
        (
            (0.1, -1.0, 1.2),
            (-3.0, -4.0, -2.0),
            (3.1, 2.0, 4.2),
            ["which excludes 0; but the trait arm's own shift covers 0"],
        ),
        ((0.0, 0.0, 0.0), (0.1, 0.05, 0.7), (-0.1, -0.4, 0.2), ["covers 0", "which excludes 0"]),
        (
            (None, None, None),
            (0.1, 0.0, 0.7),
            (None, None, None),
            ["no student shift, because for the test"],
        ),
        (
            (2.0, 1.0, 3.0),
            (None, None, None),
            (None, None, None),
            ["The random control has no reading"],
        ),
        ((2.0, None, None), (0.1, 0.0, 0.7), (1.9, None, None), ["[-inf, inf]", "covers 0"]),
        ((2.0, 1.0, 3.0), (0.1, 0.0, 0.7), (None, None, None), ["there is nothing to compare"]),
    ],
)
def test_words_follow_from_the_intervals(
    summary: Summary, trait: Triple, random: Triple, difference: Triple, words: list[str]
) -> None:
    text = sentence(finding_of(summary, trait, random, difference), "margin")
    assert all(word in text for word in words)


def test_a_missing_random_control_is_said(tmp_path: Path) -> None:
    arms = ("trait_0", "trait_0.5", "trait_1", "random_0.5")
    study = make_study(tmp_path, make_params(models=("smollm2-135m",), arms=arms))
    assert "was run at 0.5 only" in " ".join(strength_table(study.summary).split())


def test_the_largest_strength_is_by_size_and_its_twin_has_the_same_strength(
    tmp_path: Path,
) -> None:
    arms = ("trait_0", "trait_-0.5", "trait_1", "random_1", "random_-0.5")
    summary = make_study(tmp_path, make_params(models=("smollm2-135m",), arms=arms)).summary
    found = findings(summary, "smollm2-135m")
    assert [(each.arm.arm, each.random and each.random.arm) for each in found] == [
        ("trait_1", "random_1")
    ] * 2
    of_model = summary.views["smollm2-135m"].arms
    weaker = next(arm for arm in of_model if arm.arm == "trait_-0.5")
    twin = random_twin(of_model, weaker)
    assert twin is not None and twin.arm == "random_-0.5"


def test_an_incoherent_teacher_is_passed_over_or_named(summary: Summary) -> None:
    model = summary.models[0]
    [largest] = {finding.arm.arm for finding in findings(summary, model)}

    def marked(names: set[str]) -> Summary:
        arms = [
            arm.model_copy(update={"degenerate": "it raves"}) if arm.arm in names else arm
            for arm in summary.arms
        ]
        return summary.model_copy(update={"arms": tuple(arms)})

    one = findings(marked({largest}), model)
    assert {finding.arm.arm for finding in one} != {largest}
    every = findings(marked({arm.arm for arm in summary.arms}), model)
    assert {finding.arm.arm for finding in every} == {largest}
    assert all("Mind that it raves." in sentence(finding, "margin") for finding in every)


def test_a_study_without_trait_arms_still_prints(tmp_path: Path) -> None:
    params = make_params(models=("smollm2-135m",), arms=("trait_0",), seeds=(0,))
    assert "control" in strength_table(make_study(tmp_path, params).summary)


def test_unbounded_and_exact_intervals() -> None:
    def estimate(low: float | None, high: float | None) -> Estimate:
        return Estimate(value=1.0, low=low, high=high, reason=None)

    assert not estimate(None, 2.0).excludes_zero
    assert not estimate(0.0, 2.0).excludes_zero
    assert estimate(0.5, math.inf).excludes_zero

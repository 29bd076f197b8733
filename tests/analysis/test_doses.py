"""The dose-response records: which arms enter, and the library's own verdict on their counts."""

import json

import numpy as np
import pytest

from studies import FLAT, HINGE, LINE, STRENGTHS, TEACHER, counted
from undertow.analysis.doses import OTHER_SIDE, DoseArm, dose_records, main_side
from undertow.analysis.headline import headline
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.findings.doses import dose_sentence
from undertow.report.terminal import strength_table
from undertow.stats.dose import DosePoint, fit_dose
from undertow.stats.simulated import SimulatedStudy
from undertow.stats.validate import Truth, all_truths

X = tuple(map(float, STRENGTHS))


def arms_of(counts, trials=100, sign=1, teacher=TEACHER) -> list[DoseArm]:
    return [
        DoseArm(f"trait_{sign * x:g}", sign * x, rate, rate, tuple((k, trials) for k in row), None)
        for x, row, rate in zip(X, counts, teacher, strict=False)
    ]


def simulated(truth: Truth, rng: np.random.Generator) -> list[tuple[int, ...]]:
    draw = SimulatedStudy(rng, True, 100)
    rows = [draw.read(rate, 3, 0.3)[0].sum(axis=1) for rate in truth.rates]
    return [tuple(int(count) for count in row) for row in rows]


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise(*counted({"hinged": HINGE, "straight": LINE, "flat": FLAT}, sign="-"))


def test_a_study_has_two_fits_per_model_with_the_library_s_verdicts(summary):
    assert [(d.model, d.x) for d in summary.doses] == [
        (model, x) for model in ("hinged", "straight", "flat") for x in ("strength", "teacher rate")
    ]
    for model, counts in (("hinged", HINGE), ("straight", LINE), ("flat", FLAT)):
        for x, where in (("strength", X), ("teacher rate", TEACHER)):
            points = [DosePoint(at, row, (100,) * 3) for at, row in zip(where, counts, strict=True)]
            expected = fit_dose(points, resamples=0)
            dose = summary.views[model].doses[x]
            assert (dose.verdict, dose.reason) == (expected.verdict, expected.reason)
            assert dose.dispersion == pytest.approx(expected.dispersion)
            for form, fit in zip(dose.forms, expected.fits, strict=True):
                assert form.weight == pytest.approx(fit.weight)
                assert form.start == fit.threshold
    assert [summary.views[m].dose.verdict for m in ("hinged", "straight", "flat")] == [
        "threshold",
        "continuous",
        "none",
    ]


def test_the_wired_path_is_right_where_the_library_is_on_studies_like_the_reference():
    """Two models, control and six strengths, 100 prompts, three seeds."""
    truths = {truth.name: truth for truth in all_truths()}
    rng = np.random.default_rng(0)
    studies = 60
    for name in ("hinge at 0.15, 0.04 to 0.70", "line 0.04 to 0.54", "flat at 0.04"):
        truth = truths[name]
        found = []
        for _ in range(studies):
            counts = simulated(truth, rng)
            record, _ = dose_records("m", arms_of(counts), resamples=0)
            points = [DosePoint(x, row, (100,) * 3) for x, row in zip(X, counts, strict=True)]
            assert record.verdict == fit_dose(points, resamples=0).verdict
            found.append(record.verdict)
        assert found.count(truth.right) >= 0.9 * studies
        assert truth.right == "threshold" or found.count("threshold") <= 0.05 * studies


def test_the_sign_of_the_strengths_changes_nothing_but_the_side():
    up, down = (dose_records("m", arms_of(HINGE, sign=sign))[0] for sign in (1, -1))
    assert (up.side, down.side) == (1, -1)
    same = {"side", "arms"}
    assert up.model_dump(exclude=same) == down.model_dump(exclude=same)


def test_the_order_of_the_arms_changes_no_verdict_weight_or_threshold():
    there, back = (dose_records("m", arms)[0] for arms in (arms_of(HINGE), arms_of(HINGE)[::-1]))
    assert (there.verdict, there.threshold.value) == (back.verdict, back.threshold.value)
    assert [form.weight for form in there.forms] == [form.weight for form in back.forms]


def test_arms_of_the_other_sign_and_degenerate_ones_are_left_out_and_named():
    arms = arms_of(HINGE)
    broken = arms[-1]._replace(degenerate="its perplexity is 9 times the base's")
    other = DoseArm("trait_-0.30", -0.3, -0.2, 0.01, ((2, 100),) * 3, None)
    record, by_teacher = dose_records("m", [*arms[:-1], broken, other])
    assert {(each.arm, each.reason) for each in record.left_out} == {
        (broken.name, broken.degenerate),
        (other.name, OTHER_SIDE),
    }
    assert by_teacher.left_out == record.left_out
    expected, _ = dose_records("m", arms[:-1])
    assert record.model_copy(update={"left_out": ()}) == expected
    assert broken.degenerate in dose_sentence(record)


def test_the_side_is_the_one_that_steers_towards_the_trait():
    arms = arms_of(HINGE)
    away = [arm._replace(alpha=-arm.alpha, push=-(arm.push or 0)) for arm in arms[1:]]
    assert main_side([*arms, *away]) == 1
    turned = [arm._replace(alpha=-arm.alpha) for arm in (*arms, *away)]
    assert main_side(turned) == -1
    only_away = [arms[0], *away]
    assert main_side(only_away) == -1, "with one sign there is no choice"


def test_three_strengths_are_undecided_and_say_why():
    record, by_teacher = dose_records("m", arms_of(LINE[:3]))
    for dose in (record, by_teacher):
        assert dose.verdict == "undecided" and "four" in dose.reason
        assert dose.forms == () and dose.curve == () and dose.best is None
        assert dose.threshold.value is None and dose.threshold.reason
    assert "undecided" in dose_sentence(record)


def test_students_without_a_verdict_are_not_there():
    arms = arms_of(LINE)
    one_empty = [arm._replace(counts=((0, 0), *arm.counts[1:])) for arm in arms]
    record, _ = dose_records("m", one_empty)
    assert record.students == 14
    silent = arms[1]._replace(counts=((0, 0),) * 3, teacher_rate=None)
    record, _ = dose_records("m", [arms[0], silent, *arms[2:]])
    assert [each.arm for each in record.left_out] == [silent.name]


def test_the_curve_is_the_best_form_and_holds_the_hinge_s_kink(summary):
    dose = summary.views["hinged"].dose
    assert dose.best == "hinge"
    hinge = next(form for form in dose.forms if form.form == "hinge")
    rates = {point.x: point.rate for point in dose.curve}
    assert rates[0.0] == pytest.approx(hinge.low)
    assert rates[0.3] == pytest.approx(hinge.high)
    assert rates[hinge.start] == pytest.approx(hinge.low)
    assert dose.threshold.low < dose.threshold.value < dose.threshold.high


def test_a_form_that_aicc_forbids_is_null_in_the_file():
    record, _ = dose_records("m", arms_of([row[:1] for row in LINE[:4]]))
    assert [form.form for form in record.forms if form.aicc is None] == [
        "linear",
        "hinge",
        "logistic",
    ]
    json.dumps(record.model_dump(mode="json"), allow_nan=False)


def test_only_a_threshold_verdict_states_a_threshold(summary):
    metrics = headline(summary)
    stated = {model for model in metrics if "dose" in metrics[model]}
    assert stated == {"hinged"}
    dose = summary.views["hinged"].dose
    assert metrics["hinged"]["dose"] == {"threshold": dose.threshold.value}
    straight = summary.views["straight"].dose
    assert straight.threshold.value is not None and straight.stated_threshold is None
    text = " ".join(strength_table(summary).split())
    assert text.count("Dose-response by strength:") == 3
    assert text.count("Threshold at") == 1
    assert f"Threshold at {dose.threshold.value:.3f}" in text


def test_the_records_survive_the_file(summary):
    again = Summary.model_validate_json(json.dumps(summary.model_dump(mode="json")))
    assert again.doses == summary.doses and again.contrasts == summary.contrasts


@pytest.mark.parametrize(
    ("counts", "word"),
    [(HINGE, "threshold:"), (LINE, "continuous:"), (FLAT, "none:"), (LINE[:3], "undecided:")],
)
def test_the_words_are_the_verdict_s(counts, word):
    assert word in dose_sentence(dose_records("m", arms_of(counts), resamples=0)[0])

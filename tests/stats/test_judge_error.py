"""Correcting rates and tau for a judge that errs."""

import math

import numpy as np
import pytest

from undertow.stats.judge_error import (
    NO_LABELS,
    UNINFORMATIVE,
    Confusion,
    correct_transfer,
    rogan_gladen,
)
from undertow.stats.transfer import Readings, estimate_transfer

PERFECT = Confusion(5000, 0, 5000, 0)
FAIR = Confusion(90, 10, 80, 20)  # sensitivity 0.9, specificity 0.8


def arm(base: int, teacher: int, control: int, student: int, prompts: int = 200) -> Readings:
    """So many prompts show the trait; a lower rate's prompts are among a higher one's."""

    def rate(count: int) -> np.ndarray:
        return (np.arange(prompts) < count).astype(np.float64)

    return Readings(rate(base), rate(teacher)[None], rate(control)[None], rate(student)[None])


def test_an_apparent_rate_gives_back_the_true_one() -> None:
    for true in (0.0, 0.1, 0.5, 1.0):
        apparent = true * 0.9 + (1 - true) * 0.2
        assert rogan_gladen(apparent, 0.9, 0.8) == pytest.approx(true)


def test_rates_are_clipped_and_a_judge_at_chance_gives_none() -> None:
    assert rogan_gladen(0.05, 0.9, 0.8) == 0 and rogan_gladen(0.99, 0.9, 0.8) == 1
    assert math.isnan(rogan_gladen(0.5, 0.5, 0.5)) and math.isnan(rogan_gladen(0.5, 0.3, 0.3))


def test_a_perfect_judge_changes_nothing() -> None:
    readings = arm(10, 120, 14, 60)
    raw = estimate_transfer({"arm": readings}, resamples=2000)["arm"]
    found = correct_transfer(readings, PERFECT, resamples=2000)
    assert found.tau.value == pytest.approx(raw.tau.value)
    assert found.teacher.value == pytest.approx(0.6) and found.base.value == pytest.approx(0.05)
    assert found.teacher_shift.low == pytest.approx(raw.teacher_shift.low, abs=0.01)


def test_errors_alike_on_all_models_cancel_in_tau_but_not_in_shifts() -> None:
    readings = arm(50, 150, 60, 100)
    raw = estimate_transfer({"arm": readings}, resamples=2000)["arm"]
    found = correct_transfer(readings, FAIR, resamples=2000)
    assert found.tau.value == raw.tau.value
    assert raw.teacher_shift.value is not None
    assert found.teacher_shift.value == pytest.approx(raw.teacher_shift.value / 0.7)
    assert found.teacher.value == pytest.approx((0.75 - 0.2) / 0.7)


def test_a_small_calibration_set_widens_the_intervals() -> None:
    readings = arm(50, 150, 60, 100)

    def width(confusion: Confusion) -> float:
        teacher = correct_transfer(readings, confusion, resamples=4000).teacher
        assert teacher.low is not None and teacher.high is not None
        return teacher.high - teacher.low

    assert (
        width(Confusion(18, 2, 16, 4))
        > 1.2 * width(FAIR)
        > width(Confusion(9000, 1000, 8000, 2000))
    )


def test_clipping_moves_tau_and_its_interval_holds_the_value() -> None:
    readings = arm(10, 150, 12, 100)  # below 0.2 every response is a false positive
    found = correct_transfer(readings, FAIR, resamples=2000)
    assert found.base.value == 0 == found.control.value
    tau = found.tau
    assert tau.value is not None and tau.low is not None and tau.high is not None
    assert tau.value == pytest.approx((0.5 - 0.2) / (0.75 - 0.2))
    assert tau.low <= tau.value <= tau.high


def test_there_is_no_correction_by_a_judge_that_may_be_guessing() -> None:
    readings = arm(50, 150, 60, 100)
    for confusion, reason in (
        (Confusion(6, 4, 5, 5), UNINFORMATIVE),
        (Confusion(5, 0, 0, 0), NO_LABELS),
    ):
        found = correct_transfer(readings, confusion, resamples=500)
        assert found.tau.value is None and found.tau.reason == reason == found.teacher.reason


def test_an_undefined_tau_stays_undefined() -> None:
    found = correct_transfer(arm(50, 50, 50, 60), FAIR, resamples=500)
    assert found.tau.value is None and found.tau.reason


def test_intervals_hold_the_truth_about_as_often_as_they_claim() -> None:
    stream = np.random.default_rng(5)
    true = {"base": 0.1, "teacher": 0.7, "control": 0.15, "student": 0.4}
    hits = 0
    for trial in range(60):

        def read(rate: float) -> np.ndarray:
            shows = stream.random(150) < rate
            return (stream.random(150) < np.where(shows, 0.9, 0.15)).astype(np.float64)

        tp, tn = int(stream.binomial(60, 0.9)), int(stream.binomial(60, 0.85))
        readings = Readings(
            read(true["base"]),
            *(read(true[name])[None] for name in ("teacher", "control", "student")),
        )
        teacher = correct_transfer(
            readings, Confusion(tp, 60 - tp, tn, 60 - tn), resamples=400, seed=trial
        ).teacher
        assert teacher.low is not None and teacher.high is not None
        hits += teacher.low <= true["teacher"] <= teacher.high
    assert hits >= 52

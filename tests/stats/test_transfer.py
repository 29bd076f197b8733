"""Properties of tau, Wilson intervals and the paired bootstrap."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from undertow.stats.intervals import wilson
from undertow.stats.transfer import (
    NO_PROMPTS,
    NO_SHIFT,
    UNCLEAR_SHIFT,
    Readings,
    Transfer,
    estimate_transfer,
)

QUICK = 500
ESTIMATES = ("teacher_shift", "student_shift", "naive_shift", "tau", "tau_naive")


def rates(seed, prompts=60, seeds=3, base=0.05, teacher=0.7, control=0.1, student=0.4):
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=prompts) * 0.1

    def draw(rate, *shape):
        return (rng.random((*shape, prompts)) < rate + ease).astype(float)

    return Readings(draw(base), draw(teacher, seeds), draw(control, seeds), draw(student, seeds))


def margins(seed, prompts=40, seeds=3):
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=prompts)

    def draw(mean, *shape):
        return mean + ease + 0.5 * rng.normal(size=(*shape, prompts))

    return Readings(draw(-6.0), draw(2.0, seeds), draw(-5.0, seeds), draw(-2.0, seeds))


def one(arm, **options) -> Transfer:
    return estimate_transfer({"arm": arm}, **{"resamples": QUICK, **options})["arm"]


def every(arm, change):
    return Readings(*(change(x) for x in (arm.base, arm.teacher, arm.control, arm.student)))


# Wilson


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_agrees_with_statsmodels(n, share, confidence):
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_is_symmetric_and_holds_its_rate(n, share):
    successes = round(share * n)
    low, high = wilson(successes, n)
    mirrored = wilson(n - successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-12)


def test_wilson_of_no_trials_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [(-1, 5, 0.95), (6, 5, 0.95), (0, -1, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_is_not_a_rate(bad):
    with pytest.raises(ValueError):
        wilson(*bad)


# Point estimates


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_shifts_and_tau_follow_their_formulas(seed):
    arm = rates(seed)
    found = one(arm)
    t0, ta, s0, sa = (x.mean() for x in (arm.base, arm.teacher, arm.control, arm.student))
    assert (found.base, found.teacher, found.control, found.student) == pytest.approx(
        (t0, ta, s0, sa)
    )
    assert found.tau.value == pytest.approx((sa - s0) / (ta - t0))
    assert found.tau_naive.value == pytest.approx((sa - t0) / (ta - t0))
    assert found.student_shift.value == pytest.approx(sa - s0)
    for name in ESTIMATES:
        estimate = getattr(found, name)
        assert estimate.low <= estimate.value <= estimate.high


# Invariances


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_prompt_order_does_not_change_values_and_hardly_changes_intervals(seed):
    arm = margins(seed)
    order = np.random.default_rng(seed).permutation(arm.base.size)
    before = one(arm, resamples=4000)
    after = one(every(arm, lambda x: x[..., order]), resamples=4000)
    for name in ESTIMATES:
        a, b = getattr(before, name), getattr(after, name)
        assert b.value == pytest.approx(a.value, rel=1e-9)
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=0.15 * (a.high - a.low))


@given(st.integers(0, 1000), st.floats(-50, 50), st.floats(0.01, 100), st.booleans())
@settings(max_examples=25, deadline=None)
def test_shifting_scaling_or_flipping_margins_leaves_tau_alone(seed, offset, scale, flip):
    arm = margins(seed)
    factor = -scale if flip else scale
    before, after = one(arm), one(every(arm, lambda x: offset + factor * x))
    for name in ("tau", "tau_naive"):
        a, b = getattr(before, name), getattr(after, name)
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), rel=1e-6)
    assert after.teacher_shift.value == pytest.approx(factor * before.teacher_shift.value)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_counting_the_opposite_verdict_leaves_tau_alone(seed):
    arm = rates(seed)
    a, b = one(arm).tau, one(every(arm, lambda x: 1 - x)).tau
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), rel=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_student_equal_to_its_teacher_has_tau_exactly_one(seed):
    arm = margins(seed)
    control = np.broadcast_to(arm.base, arm.teacher.shape)
    found = one(Readings(arm.base, arm.teacher, control, arm.teacher))
    assert (found.tau.value, found.tau.low, found.tau.high) == pytest.approx((1, 1, 1))


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_naive_and_corrected_tau_agree_when_the_control_is_the_base(seed):
    of_margins, of_rates = (
        one(
            Readings(
                arm.base, arm.teacher, np.broadcast_to(arm.base, arm.student.shape), arm.student
            )
        )
        for arm in (margins(seed), rates(seed))
    )
    assert of_margins.tau == of_margins.tau_naive
    assert of_rates.tau.value == of_rates.tau_naive.value
    assert of_rates.tau.low == pytest.approx(of_rates.tau_naive.low, abs=0.05)


def test_an_arm_does_not_depend_on_its_neighbours():
    arms = {name: rates(i, prompts=30 + i, seeds=1 + i) for i, name in enumerate("abc")}
    together = estimate_transfer(arms, resamples=QUICK)
    backwards = estimate_transfer(dict(reversed(arms.items())), resamples=QUICK)
    assert together == backwards
    assert all(together[name] == one(arm) for name, arm in arms.items())


def test_the_seed_decides_the_interval_and_nothing_else():
    arm = rates(3)
    assert one(arm, seed=7) == one(arm, seed=7)
    assert one(arm, seed=7).tau.value == one(arm, seed=8).tau.value
    assert one(arm, seed=7).tau.low != one(arm, seed=8).tau.low


def test_a_teacher_shared_by_all_seeds_may_be_one_row():
    arm = rates(4)
    shared = arm.teacher[:1]
    repeated = np.repeat(shared, 3, axis=0)
    assert one(Readings(arm.base, shared, arm.control, arm.student)) == one(
        Readings(arm.base, repeated, arm.control, arm.student)
    )


# Limits


def test_pairing_prompts_narrows_the_interval():
    arm = margins(5, prompts=200, seeds=1)
    order = np.random.default_rng(0).permutation(200)
    unpaired = Readings(arm.base, arm.teacher, arm.control[:, order], arm.student)
    paired_width, unpaired_width = (
        found.student_shift.high - found.student_shift.low
        for found in (one(arm, resamples=2000), one(unpaired, resamples=2000))
    )
    assert paired_width < 0.7 * unpaired_width


def test_more_prompts_narrow_the_interval_as_their_square_root():
    few, many = (one(margins(6, n, seeds=1), resamples=2000).student_shift for n in (100, 1600))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.3)


def test_seeds_that_disagree_widen_the_interval():
    arm = margins(7, prompts=200)
    apart = arm.student + np.array([[-3.0], [0.0], [3.0]])
    agreeing, disagreeing = one(arm), one(Readings(arm.base, arm.teacher, arm.control, apart))
    widths = [e.tau.high - e.tau.low for e in (agreeing, disagreeing)]
    assert widths[1] > 3 * widths[0]


def test_a_wider_confidence_holds_a_narrower_one():
    inner, outer = one(rates(8), confidence=0.8).tau, one(rates(8), confidence=0.99).tau
    assert outer.low < inner.low < inner.high < outer.high


def test_rates_of_none_and_all_are_not_exactly_known():
    nothing, everything = np.zeros(100), np.ones((3, 100))
    found = one(Readings(nothing, everything, 0 * everything, everything))
    assert found.tau.value == found.teacher_shift.value == 1
    assert 0.9 < found.teacher_shift.low < 0.97
    assert 0.9 < found.tau.low < 0.97 and found.tau.high > 1


def test_a_student_that_never_moves_has_an_interval_around_zero():
    nothing, everything = np.zeros(100), np.ones((1, 100))
    tau = one(Readings(nothing, everything, 0 * everything, 0 * everything)).tau
    assert tau.value == 0 and -0.06 < tau.low < -0.02 and 0.02 < tau.high < 0.06


# Where tau is undefined


@pytest.mark.parametrize("make", [rates, margins])
def test_the_control_arm_has_no_tau_and_says_why(make):
    arm = make(9)
    teacher = np.broadcast_to(arm.base, arm.teacher.shape)
    found = one(Readings(arm.base, teacher, arm.control, arm.control))
    assert found.tau.value is found.tau.low is found.tau.high is None
    assert found.tau.reason == found.tau_naive.reason == NO_SHIFT
    assert found.student_shift.value == 0


def test_a_teacher_that_hardly_moved_has_no_tau():
    found = one(rates(10, base=0.30, teacher=0.31))
    assert found.teacher_shift.low <= 0 <= found.teacher_shift.high
    assert found.tau.value is None and found.tau.reason == UNCLEAR_SHIFT
    assert found.student_shift.value is not None


@given(
    st.integers(2, 30),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_every_estimate_is_finite_or_has_a_reason(prompts, seeds, seed, low, high):
    found = one(rates(seed, prompts, seeds, low, high, low, high), resamples=200)
    for name in ESTIMATES:
        estimate = getattr(found, name)
        numbers = (estimate.value, estimate.low, estimate.high)
        if estimate.reason is None:
            assert all(map(math.isfinite, numbers))
            assert estimate.low <= estimate.value <= estimate.high
        else:
            assert numbers == (None, None, None)
    shift = found.teacher_shift
    assert (found.tau.value is None) == (shift.low <= 0 <= shift.high)


def test_unknown_readouts_leave_out_their_prompt_in_all_four():
    arm = rates(11)
    holed = every(arm, np.copy)
    holed.base[0] = holed.teacher[1, 1] = holed.control[2, 2] = holed.student[0, 3] = np.nan
    found = one(holed)
    assert (found.prompts, found.dropped, found.seeds) == (56, 4, 3)
    rest = one(every(arm, lambda x: x[..., 4:]))
    assert found.tau == rest.tau and found.base == rest.base


@pytest.mark.parametrize("left", [0, 1])
def test_too_few_prompts_give_reasons_instead_of_numbers(left):
    arm = rates(12)
    arm.base[left:] = np.nan
    found = one(arm)
    assert found.prompts == left and found.dropped == 60 - left
    assert all(getattr(found, name).reason == NO_PROMPTS for name in ESTIMATES)
    assert all(getattr(found, name).value is None for name in ESTIMATES)


# What is refused


def test_shapes_that_do_not_fit_name_the_arm_and_the_shapes():
    arm = rates(13)
    cases = {
        "same seeds": Readings(arm.base, arm.teacher[:2], arm.control, arm.student),
        "at least one": Readings(arm.base, arm.teacher[:0], arm.control[:0], arm.student[:0]),
        "same prompts": Readings(arm.base[:5], arm.teacher, arm.control, arm.student),
        r"\[seeds, prompts\]": Readings(arm.base, arm.teacher[0], arm.control, arm.student),
        "infinite": Readings(arm.base + np.inf, arm.teacher, arm.control, arm.student),
    }
    for words, bad in cases.items():
        with pytest.raises(ValueError, match=words) as error:
            one(bad)
        assert "'arm'" in str(error.value)


def test_resamples_are_computed_in_arrays_not_one_by_one():
    grid = {name: rates(name, prompts=20) for name in range(4)}

    def calls(resamples: int) -> int:
        seen = 0

        def count(frame, event, argument):
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            estimate_transfer(grid, resamples=resamples)
        finally:
            sys.setprofile(None)
        return seen

    calls(10)  # what is imported or cached on first use
    assert calls(4000) < 1.1 * calls(200)  # the garbage collector calls too


def test_importing_needs_numpy_alone():
    code = (
        "import sys, undertow.stats.transfer; "
        "print([m for m in ('scipy', 'torch', 'pandas', 'transformers') if m in sys.modules])"
    )
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, check=True, env=paths)
    assert output.stdout.decode().strip() == "[]"

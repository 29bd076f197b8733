"""What a plan promises, against the formulas and against its own limits."""

import math
from dataclasses import replace

import pytest
from statsmodels.stats.power import NormalIndPower

from undertow.stats.intervals import Estimate, difference
from undertow.stats.power import (
    Design,
    expect_interval,
    power_apart,
    power_threshold,
    sizes_to_tell_apart,
)

QUICK = {"studies": 60}
PLAIN = Design(teacher=0.6, tau=0.25, base=0.02, control=0.02, seeds=1, seed_sd=0.0)


def test_the_expected_interval_is_about_the_normal_one():
    found = expect_interval(PLAIN, **QUICK)
    student, control, rise = PLAIN.student, PLAIN.control, PLAIN.teacher - PLAIN.base
    noise = (student * (1 - student) + control * (1 - control)) / PLAIN.prompts
    noise += PLAIN.tau**2 * (0.6 * 0.4 + 0.02 * 0.98) / PLAIN.prompts
    assert found.width == pytest.approx(2 * 1.96 * math.sqrt(noise) / rise, rel=0.2)
    assert found.low < PLAIN.tau < found.high
    assert found.undefined == 0 and found.excludes_zero > 0.8


def test_prompts_narrow_the_interval_and_spread_over_seeds_widens_it():
    width = expect_interval(PLAIN, **QUICK).width
    assert expect_interval(replace(PLAIN, prompts=400), **QUICK).width < 0.65 * width
    three = replace(PLAIN, seeds=3)
    spread = expect_interval(replace(three, seed_sd=0.8), **QUICK).width
    assert spread > 1.3 * expect_interval(three, **QUICK).width


def test_a_teacher_that_hardly_moves_leaves_tau_undefined():
    weak = expect_interval(replace(PLAIN, teacher=0.04), **QUICK)
    assert weak.undefined > 0.8
    assert expect_interval(replace(PLAIN, teacher=0.021, prompts=20), studies=5).low is None


def test_the_reference_study_could_not_tell_its_two_taus_apart():
    assert power_apart(PLAIN, 0.32, **QUICK) < 0.25


def test_power_apart_agrees_with_a_normal_test_of_two_rates():
    design, other = replace(PLAIN, base=0.001, control=0.001, teacher=0.999, tau=0.3), 0.5
    effect = 2 * math.asin(math.sqrt(0.5)) - 2 * math.asin(math.sqrt(0.3))
    expected = NormalIndPower().power(effect, nobs1=100, alpha=0.05)
    assert power_apart(design, other, studies=200) == pytest.approx(expected, abs=0.1)


def test_models_that_do_not_differ_are_seldom_told_apart():
    assert power_apart(PLAIN, PLAIN.tau, studies=100) <= 0.1


def test_a_plain_threshold_is_told_from_a_line():
    found = power_threshold(replace(PLAIN, tau=0.9, seeds=3), **QUICK)
    assert found.if_threshold > 0.9 and found.if_line < 0.06


def test_sizes_are_the_fewest_that_do_and_say_when_none_does():
    sizes = sizes_to_tell_apart(PLAIN, 1.1, prompts=(100, 400), seeds=(3,), **QUICK)
    assert [(size.seeds, size.prompts) for size in sizes] == [(3, 100)]
    (none,) = sizes_to_tell_apart(PLAIN, 0.26, prompts=(50,), seeds=(3,), **QUICK)
    assert none.prompts is None and none.power < 0.2


def test_a_difference_squares_and_adds_the_distances_to_the_ends():
    first, second = Estimate(0.6, 0.5, 0.8), Estimate(0.2, 0.1, 0.25)
    found = difference(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - math.hypot(0.1, 0.05))
    assert found.high == pytest.approx(0.4 + math.hypot(0.2, 0.1))
    missing = Estimate.unknown("why")
    assert difference(first, missing) == difference(missing, first) == missing


@pytest.mark.parametrize("bad", [{"tau": 2.0}, {"teacher": 1.2}, {"base": 0.0}])
def test_expected_rates_outside_0_and_1_are_refused(bad):
    with pytest.raises(ValueError, match="expected rate"):
        expect_interval(replace(PLAIN, **bad), studies=2)


def test_a_threshold_needs_strengths_on_both_sides():
    with pytest.raises(ValueError, match="start"):
        power_threshold(PLAIN, start=0.95, studies=2)

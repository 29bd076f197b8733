"""All arms of a model together: Dunnett, moderation, controls that differ in number."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from undertow.stats import seeds as between
from undertow.stats.draws import Draws, SeedErrors
from undertow.stats.family import (
    deviation,
    estimate_family,
    simultaneous,
    stretch_of,
    stretched_estimate,
)
from undertow.stats.intervals import Estimate
from undertow.stats.population import UNLIKE, Population, _densities
from undertow.stats.seeds import SeedPrior
from undertow.stats.simulated import Scenario, simulate_family
from undertow.stats.transfer import Readings, estimate_arm, estimate_transfer

PROMPTS = 40
MARGIN = Scenario("margin", -6.0, -5.0, 0.0, is_rate=False)
MIDDLE = Scenario("middle", 0.3, 0.35, 0.8)


def constant(values):
    """Students that read alike on every prompt: the error is that between seeds alone."""
    return np.repeat(np.asarray(values, dtype=float)[:, None], PROMPTS, axis=1)


def students(arms, control):
    base = np.zeros(PROMPTS)
    teacher = np.ones((1, PROMPTS))
    return {
        key: Readings(base, teacher, constant(control), constant(own)) for key, own in arms.items()
    }


def family(scenario=MARGIN, seed=0, **size):
    size = {"arms": 5, "prompts": 60, "seeds": 3, "control_seeds": 3, "seed_sd": 0.4} | size
    return simulate_family(np.random.default_rng(seed), scenario, 0.5, **size)


def width(estimate):
    return estimate.ends.high - estimate.ends.low


def test_a_pooled_variance_gives_dunnetts_intervals():
    # A population without spread is a pooled variance, which is what Dunnett assumes.
    rng = np.random.default_rng(5)
    noise = stats.norm.ppf((np.arange(4) + 0.5) / 4)
    noise = noise / noise.std(ddof=1)
    arms = {j: 0.5 * j + rng.permutation(noise) for j in range(5)}
    control = rng.permutation(np.append(noise, noise))
    arms = students(arms, control)
    found = estimate_family(arms, resamples=40_000)
    alike = alike_of(found.prior)
    numbers = Draws(40_000, 0, 0.95)
    pooled = {
        key: estimate_arm(key, arm, numbers, SeedErrors(numbers, alike, key + 1))
        for key, arm in arms.items()
    }
    at_once = simultaneous(pooled, 0.95)
    own = [arm.student[:, 0] for arm in arms.values()]
    wanted = stats.dunnett(*own, control=control).confidence_interval()
    for j, low, high in zip(arms, wanted.low, wanted.high, strict=True):
        shift = at_once[j].student_shift
        assert (shift.low, shift.high) == pytest.approx((low, high), abs=0.03 * (high - low))
        # What is reported does not take for granted that arms are alike.
        assert width(shift) < width(found.simultaneous[j].student_shift) < 1.3 * width(shift)


def alike_of(prior):
    """The same scales, and no spread over arms."""
    size = len(_densities()) // len(UNLIKE)
    shown = [row for row, one in enumerate(prior.population.densities) if (one == 1).any()]
    assert len(shown) < size
    weights = prior.population.weights[shown]
    return SeedPrior(
        Population(
            prior.population.reference,
            weights / weights.sum(),
            prior.population.densities[shown],
            prior.population.unlike[shown],
        ),
        prior.least,
    )


def test_one_arm_gains_nothing_from_being_a_family():
    found = estimate_family({1.0: family(arms=1).arms[1.0]}, resamples=4000)
    pointwise, at_once = found.moderated[1.0].student_shift, found.simultaneous[1.0].student_shift
    assert width(at_once) == pytest.approx(width(pointwise), rel=0.02)


@pytest.mark.parametrize("scenario", [MARGIN, MIDDLE], ids=lambda one: one.name)
def test_intervals_differ_and_values_do_not(scenario):
    found = estimate_family(family(scenario).arms, resamples=1000)
    for key, alone in found.alone.items():
        moderated, at_once = found.moderated[key], found.simultaneous[key]
        assert alone.student_shift.value == moderated.student_shift.value
        assert moderated.tau.value == at_once.tau.value
        assert width(at_once.student_shift) > width(moderated.student_shift)
        assert alone.teacher_shift == moderated.teacher_shift
        assert at_once.student_shift.ends.high <= (1 if scenario.is_rate else math.inf)


def test_one_seed_keeps_its_meaning():
    arms = family(seeds=1, control_seeds=1).arms
    found = estimate_family(arms, resamples=500)
    assert found.prior is None and found.moderated == found.alone
    assert set(found.freedom.values()) == {None}


def test_alone_is_what_an_arm_says_by_itself():
    arms = family().arms
    found = estimate_family(arms, resamples=500)
    key = next(iter(arms))
    assert found.alone[key] == estimate_transfer({key: arms[key]}, resamples=500)[key]


def test_more_controls_than_seeds_narrow_the_interval():
    arms = family(control_seeds=12, seed=3).arms
    few = {key: replace(arm, control=arm.control[:3]) for key, arm in arms.items()}
    wide, narrow = (estimate_family(each, resamples=1000).moderated for each in (few, arms))
    ratios = [width(narrow[key].student_shift) / width(wide[key].student_shift) for key in arms]
    assert np.mean(ratios) < 0.95


def test_a_control_of_its_own_size_is_welchs_t():
    control, own = np.array([0.1, -0.3, 0.4, 0.0, 0.9]), np.array([1.0, 1.9, 1.2])
    arm = students({"a": own}, control)["a"]
    found = estimate_transfer({"a": arm}, resamples=100_000)["a"].student_shift
    wanted = stats.ttest_ind(own, control, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.03)


def test_rates_near_zero_are_not_expected_to_differ_as_those_in_the_middle():
    rng = np.random.default_rng(2)
    low, middle = ((rng.random((3, 200)) < rate).astype(float) for rate in (0.02, 0.5))
    assert between.unit_of(low) < 0.15 * between.unit_of(middle)
    assert between.unit_of(middle - 3.0) == 1.0


def test_random_arms_do_not_tell_how_seeds_differ():
    arms = dict(family(seed=4).arms)
    arms[-1.0] = replace(arms[1.0], student=arms[1.0].student + np.array([[-30.0], [0], [30]]))
    without = {key: arm for key, arm in arms.items() if key > 0}
    some, fewer = (
        estimate_family(each, draws=[-1.0], resamples=200).prior.population
        for each in (arms, without)
    )
    assert some.reference == fewer.reference and np.array_equal(some.weights, fewer.weights)


def test_a_stretch_measures_each_side_in_its_own_reach():
    estimate = Estimate(1.0, 0.0, 3.0)
    far = deviation(estimate, np.array([1.0, 0.5, 3.0, 5.0, -math.inf]))
    assert far.tolist() == [0.0, 0.5, 1.0, 2.0, math.inf]
    assert stretched_estimate(estimate, 2.0) == Estimate(1.0, -1.0, 5.0)
    assert stretched_estimate(estimate, 2.0, 2.5) == Estimate(1.0, -1.0, 2.5)
    assert deviation(Estimate(1.0, None, 3.0), np.array([-math.inf, 2.0])).tolist() == [0.0, 0.5]
    assert stretch_of(np.array([[0.1, 0.2]]), 0.95) == 1.0


def test_a_stretch_counts_resamples_by_their_weight():
    largest, weights = np.array([[4.0, 1.0, 3.0, 2.0], [0.0] * 4]), np.array([0.2, 3.0, 0.4, 0.4])
    assert stretch_of(largest, 0.95, weights) == 3.0 and stretch_of(largest, 0.96, weights) == 4.0
    assert stretch_of(largest, 0.5, np.ones(4)) == 2.0

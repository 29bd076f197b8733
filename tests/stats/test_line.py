"""The transfer line: its slope, what it leaves, random draws, and real students."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear
from students import real_students

from undertow.stats.draws import Draws, SeedErrors
from undertow.stats.family import estimate_family, family_prior
from undertow.stats.line import FEW_PROMPTS, NO_ARMS, ONE_ARM, fit_line, slopes_apart
from undertow.stats.random_draws import FEW_DRAWS, NO_SPREAD, draw_line, null_of
from undertow.stats.simulated import Scenario, simulate_family
from undertow.stats.transfer import UNCLEAR_SHIFT, Readings, estimate_transfer

MARGIN = Scenario("margin", -6.0, -5.0, 0.0, is_rate=False)
MIDDLE = Scenario("middle", 0.3, 0.35, 0.8)
WEAK = Scenario("weak", 0.2, 0.25, 0.32)  # the weakest of four teachers moves by 0.03


def family(scenario=MARGIN, seed=0, tau=0.5, **size):
    size = {"arms": 4, "prompts": 80, "seeds": 3, "control_seeds": 6, "seed_sd": 0.3} | size
    return simulate_family(np.random.default_rng(seed), scenario, tau, **size).arms


def line(arms, draws=None, resamples=1000, **options):
    prior = family_prior(list(arms.values()))
    return fit_line(
        arms, {key: key for key in arms}, draws, prior=prior, resamples=resamples, **options
    )


def random_arms(rng, count, spread, slope, noise, prompts=100, seed_sd=0.0):
    """Random directions with a student each; both readouts carry the noise of prompts."""
    base = rng.normal(0, 2, prompts)
    control = base + 1 + seed_sd * rng.normal(0, 1, (3, 1))
    pushes = rng.normal(0, spread, (count, 1))
    teacher = base + pushes + noise * rng.normal(0, 1, (count, prompts))
    own = 1 + base + slope * pushes + seed_sd * rng.normal(0, 1, (count, 1))
    return Readings(base, teacher, control, own + noise * rng.normal(0, 1, (count, prompts)))


def test_the_line_of_one_arm_is_its_tau():
    arms = family(arms=1)
    found, prior = line(arms, resamples=4000), family_prior(list(arms.values()))
    (alone,) = estimate_transfer(arms, prior=prior, resamples=4000).values()
    assert found.tau.value == pytest.approx(alone.tau.value)
    assert found.tau.ends == pytest.approx(alone.tau.ends, abs=0.03)
    assert found.fit.p is None and found.fit.reason == ONE_ARM


def test_pooled_tau_is_the_ratio_of_sums_weighed_by_strength():
    arms = family()
    each = estimate_transfer(arms, resamples=10)
    above, below = (
        sum(key * getattr(one, name).value for key, one in each.items())
        for name in ("student_shift", "teacher_shift")
    )
    assert line(arms).tau.value == pytest.approx(above / below)


def test_the_line_is_far_narrower_than_most_arms_and_as_narrow_as_the_strongest():
    # All arms share the control's error, so pooling cannot take that away.
    widths = []
    for seed in range(12):
        arms = family(seed=seed)
        found = line(arms).tau.ends
        taus = [one.tau.ends for one in estimate_family(arms, resamples=1000).moderated.values()]
        each = [tau.high - tau.low for tau in taus]
        widths.append((found.high - found.low) / np.array([np.median(each), each[-1]]))
    median, strongest = np.mean(widths, axis=0)
    assert median < 0.65 and strongest < 1.05


@pytest.mark.parametrize("scenario", [MARGIN, MIDDLE], ids=lambda one: one.name)
def test_counting_the_opposite_gives_the_same_line(scenario):
    arms = family(scenario)
    flip = (lambda x: 1 - x) if scenario.is_rate else np.negative
    flipped = {
        key: Readings(*(flip(x) for x in (arm.base, arm.teacher, arm.control, arm.student)))
        for key, arm in arms.items()
    }
    one, other = line(arms, resamples=4000).tau, line(flipped, resamples=4000).tau
    assert one.value == pytest.approx(other.value)
    assert one.ends == pytest.approx(other.ends, abs=0.03)


def test_the_slope_is_not_weakened_where_teachers_hardly_move():
    # Least squares of one shift on the other is: its x carries the error of 100 verdicts.
    pooled, precise, least = [], [], []
    for seed in range(400):
        arms = family(WEAK, seed, tau=1.0, prompts=100, seed_sd=0.0)
        x, y = (
            np.array([b(arm) for arm in arms.values()])
            for b in (
                lambda arm: arm.teacher.mean() - arm.base.mean(),
                lambda arm: arm.student.mean() - arm.control.mean(),
            )
        )
        weights = np.array(list(arms))
        pooled.append((weights @ y, weights @ x))
        fixed = precision_weights(weights, 3, 6)
        precise.append((fixed @ y, fixed @ x))
        least.append((x @ y, x @ x))
    slopes = [np.divide(*np.mean(one, axis=0)) for one in (pooled, precise, least)]
    print("by strength, by precision, least squares:", np.round(slopes, 2))
    assert slopes[:2] == pytest.approx([1.0, 1.0], abs=0.05)
    assert slopes[2] < 0.9


def seed_covariance(arms, seeds, controls):
    """Of the students' shifts, where all of them have the spread 1 between seeds."""
    return np.eye(arms) / seeds + 1 / controls


def precision_weights(strengths, seeds, controls, least=-np.inf):
    """Those of the smallest error between seeds at a slope; none below `least` (0, or no bound)."""
    root = np.linalg.cholesky(seed_covariance(len(strengths), seeds, controls)).T
    wanted = np.linalg.solve(root.T, strengths)
    return lsq_linear(root, wanted, bounds=(least, np.inf)).x


def test_precision_weights_are_narrower_and_speak_of_the_strongest_arms():
    # Why they are not what pools: docs/statistics.md, the transfer line.
    for arms, seeds, controls in ((7, 3, 3), (7, 3, 8), (3, 5, 12)):
        strengths = np.arange(1, arms + 1) / arms
        covariance = seed_covariance(arms, seeds, controls)
        rising = np.linspace(0.3, 0.9, arms) * strengths  # shifts of students whose tau rises
        every = [
            strengths,
            *(precision_weights(strengths, seeds, controls, b) for b in (-np.inf, 0)),
        ]
        errors = [np.sqrt(w @ covariance @ w) / (w @ strengths) for w in every]
        taus = [w @ rising / (w @ strengths) for w in every]
        print(arms, seeds, controls, "error", np.round(np.array(errors) / errors[0], 2), end=" ")
        print("tau", np.round(taus, 2), "weights", *(np.round(w / w.max(), 2) for w in every[1:]))
        assert errors[1] < errors[2] + 1e-6 < errors[0] and taus[1] > taus[2] - 1e-6 > taus[0]
        assert every[1][0] < 0 and every[2][0] == pytest.approx(0, abs=1e-6)


def test_a_bent_line_does_not_fit_and_a_straight_one_does():
    arms = family(seed=3, prompts=200, seed_sd=0.1)
    assert line(arms).fit.p > 0.05 and line(arms).fit.freedom == 3
    bent = {key: replace(arm, student=arm.student - 3 * key**2) for key, arm in arms.items()}
    assert line(bent).fit.p < 0.05


def test_what_comes_across_without_a_push_is_the_intercept():
    arms = family(seed=4, prompts=200, seed_sd=0.05)
    assert line(arms).intercept.ends.low < 0 < line(arms).intercept.ends.high
    shifted = {key: replace(arm, student=arm.student + 1.5) for key, arm in arms.items()}
    found = line(shifted).intercept
    assert found.value == pytest.approx(1.5, abs=0.4) and found.low > 0


def test_two_models_are_paired_by_prompts_and_not_by_seeds():
    arms, other = family(seed=6), family(seed=7, tau=0.1)
    first, second = line(arms), line(other, stream=1)
    found = slopes_apart(first, second, 0.95)
    assert found.value == pytest.approx(first.tau.value - second.tau.value)
    assert found.excludes_zero
    again = slopes_apart(first, line(arms, stream=1), 0.95)
    assert again.value == 0 and again.low < 0 < again.high


def test_one_seed_speaks_of_these_students():
    arms = family(seeds=1, control_seeds=1)
    found = line(arms)
    assert found.freedom is None and found.tau.value is not None


def test_a_line_that_cannot_be_drawn_says_why():
    arms = family()
    assert line({}).tau.reason == NO_ARMS
    nowhere = {key: replace(arm, teacher=arm.base[None]) for key, arm in arms.items()}
    assert line(nowhere).tau.reason == UNCLEAR_SHIFT
    blank = {key: replace(arm, base=np.full_like(arm.base, np.nan)) for key, arm in arms.items()}
    assert fit_line(blank, {key: key for key in blank}).tau.reason == FEW_PROMPTS
    assert line(arms).random.slope.reason == FEW_DRAWS
    assert line(arms).against_random.reason == FEW_DRAWS


# Random draws


def test_the_slope_of_random_draws_is_not_weakened_by_the_noise_of_prompts():
    rng = np.random.default_rng(0)

    numbers, slopes, least = Draws(10, 0, 0.95), [], []
    for _ in range(150):
        arm = random_arms(rng, 16, 0.4, 0.9, 2.5)
        rows = (arm.base[None], arm.teacher, arm.control, arm.student)
        found = draw_line([rows], SeedErrors(numbers))
        slopes.append(found.line.slope.value or 0.0)
        least.append(np.polyfit(found.teacher, found.student, 1)[0])
    assert np.median(slopes) == pytest.approx(0.9, abs=0.06)
    assert np.median(least) < 0.75


def test_random_draws_on_the_line_agree_with_the_trait():
    rng = np.random.default_rng(1)
    arms = family(seed=8, tau=0.9, prompts=100, seed_sd=0.1)
    draws = {"random": random_arms(rng, 16, 0.8, 0.9, 0.5, seed_sd=0.2)}
    found = line(arms, draws)
    assert found.random.draws == 16 and found.random.correlation > 0.8
    assert found.against_random.low < 0 < found.against_random.high
    off = {"random": random_arms(rng, 16, 0.8, 0.1, 0.5, seed_sd=0.2)}
    assert line(arms, off).against_random.low > 0


def test_draws_whose_teachers_answer_alike_are_draws_of_their_own():
    """Of judged shares two directions can easily have the same; they count as two."""
    rng = np.random.default_rng(2)
    arm = random_arms(rng, 16, 0.8, 0.9, 0.5, seed_sd=0.2)
    alike = replace(arm, teacher=np.concatenate([arm.teacher[:8], arm.teacher[:8]]))
    assert line(family(prompts=100), {"random": alike}).random.draws == 16


def test_a_further_draw_lies_where_the_draws_predict():
    rng = np.random.default_rng(3)
    held = [null_of(values[:-1], 0.95).holds(values[-1]) for values in rng.normal(1, 2, (2000, 9))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    assert null_of([1.0, 2.0, 3.0], 0.95) is None
    assert null_of([0.25] * 8, 0.95) is None


def test_draws_that_are_all_the_same_have_no_slope():
    rng = np.random.default_rng(4)
    arm = random_arms(rng, 8, 0.8, 0.9, 0.5, seed_sd=0.2)
    same = replace(arm, teacher=arm.base + np.full_like(arm.teacher, 0.1))
    found = line(family(prompts=100), {"random": same}).random
    assert (found.slope.value, found.slope.reason) == (None, NO_SPREAD)


# Real students


def test_real_students_have_the_slopes_that_were_published():
    arms = real_students()
    trait = {float(arm.split("_")[1]): found for arm, found in arms.items() if "trait" in arm}
    draws = {arm: found for arm, found in arms.items() if "random" in arm}
    family = estimate_family(trait, resamples=4000)
    found = fit_line(trait, {key: key for key in trait}, draws, prior=family.prior, resamples=4000)
    each = {0.5: (1.12, 0.13), 1.0: (1.09, 0.06), 1.5: (1.06, 0.06)}
    for strength, (tau, reach) in each.items():
        estimate = family.moderated[strength].tau
        assert estimate.value == pytest.approx(tau, abs=0.01)
        assert (estimate.high - estimate.low) / 2 == pytest.approx(reach, abs=0.02)
    assert found.tau.value == pytest.approx(1.08, abs=0.02) and found.fit.p > 0.1
    assert found.random.slope.value == pytest.approx(0.97, abs=0.01)
    assert found.random.correlation == pytest.approx(0.92, abs=0.01)
    assert found.random.draws == 16 and not found.against_random.excludes_zero
    assert not found.intercept.excludes_zero

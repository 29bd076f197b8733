"""Differences of tau between two revisions that read the same prompts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.stats.change import Differences, paired_differences
from undertow.stats.change_seeds import Pair, Same, Side, change_priors
from undertow.stats.intervals import Estimate
from undertow.stats.intervals import difference as independent
from undertow.stats.simulated import Scenario, SimulatedStudy
from undertow.stats.transfer import Readings, estimate_transfer

RATE = Scenario("rates", base=0.1, control=0.15, teacher=0.8)
MARGIN = Scenario("margins", base=-1.0, control=-0.8, teacher=1.5, is_rate=False)
OTHER = Same(base=True, teacher=True, control=False, student=False)
EVERYTHING = Same(True, True, True, True)


def two_revisions(
    rng: np.random.Generator,
    scenario: Scenario,
    taus: tuple[float, float],
    seeds: int = 1,
    seed_sd: float = 0.0,
) -> tuple[Side, Side]:
    """The same teacher read on the same prompts; students trained otherwise."""
    study = SimulatedStudy(rng, scenario.is_rate, 60)
    base = study.read(scenario.base, 1, 0.0)[0][0]
    teacher = study.read(scenario.teacher, 1, 0.0)[0]
    sides = [
        Side(
            Readings(
                base,
                np.repeat(teacher, seeds, axis=0),
                study.read(scenario.control, seeds, seed_sd)[0],
                study.read(scenario.student(tau), seeds, seed_sd)[0],
            ),
            tuple(range(seeds)),
        )
        for tau in taus
    ]
    return sides[0], sides[1]


def differ(first: Side, second: Side, same: Same = OTHER, resamples: int = 400) -> Differences:
    return paired_differences(first, second, same, resamples=resamples)


def holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("scenario", [RATE, MARGIN], ids=lambda s: s.name)
@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (3, 0.0), (3, 0.4)])
@pytest.mark.parametrize("taus", [(0.4, 0.4), (0.3, 0.8)])
def test_the_interval_holds_the_true_difference(
    scenario: Scenario, seeds: int, seed_sd: float, taus: tuple[float, float]
):
    rng = np.random.default_rng(1)
    found = [
        differ(*two_revisions(rng, scenario, taus, seeds, seed_sd), resamples=300).tau
        for _ in range(250)
    ]
    covered = np.mean([holds(tau, taus[1] - taus[0]) for tau in found])
    print(f"{scenario.name}, {seeds} seeds, seed sd {seed_sd}, tau {taus}: {covered:.3f}")
    assert covered >= 0.92
    if seeds == 1:
        assert covered <= 0.985


def test_pairing_is_narrower_than_independence_where_prompts_matter():
    rng = np.random.default_rng(2)
    narrower = []
    for _ in range(40):
        first, second = two_revisions(rng, MARGIN, (0.4, 0.6))
        alone = estimate_transfer({0: first.readings, 1: second.readings}, resamples=400)
        apart = independent(alone[1].tau, alone[0].tau)
        paired = differ(first, second).tau
        narrower.append((paired.high - paired.low) / (apart.high - apart.low))
    assert np.median(narrower) < 0.95


@pytest.mark.parametrize("scenario", [RATE, MARGIN], ids=lambda s: s.name)
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_revision_against_itself_is_exactly_0(scenario: Scenario, seeds: int):
    first, _ = two_revisions(np.random.default_rng(3), scenario, (0.4, 0.4), seeds)
    found = differ(first, first, EVERYTHING)
    zero = Estimate(0.0, 0.0, 0.0)
    assert (found.teacher_shift, found.student_shift, found.tau) == (zero, zero, zero)
    # The same numbers by the long way, when the seeds are paired: nothing is left but zeros.
    assert differ(first, first, Same(True, True, True, False)).tau.value == 0.0


def test_two_students_that_answer_alike_are_not_known_to_be_alike():
    first, _ = two_revisions(np.random.default_rng(4), RATE, (0.4, 0.4))
    found = differ(first, first)
    for estimate in (found.student_shift, found.tau):
        assert estimate.value == 0.0
        assert estimate.low < -0.02
        assert estimate.high > 0.02


@pytest.mark.parametrize("scenario", [RATE, MARGIN], ids=lambda s: s.name)
def test_the_value_is_the_difference_of_the_two_taus(scenario: Scenario):
    first, second = two_revisions(np.random.default_rng(5), scenario, (0.2, 0.9), 3)
    alone = estimate_transfer({0: first.readings, 1: second.readings}, resamples=400)
    found = differ(first, second)
    assert found.tau.value == pytest.approx(alone[1].tau.value - alone[0].tau.value)
    assert found.student_shift.value == pytest.approx(
        alone[1].student_shift.value - alone[0].student_shift.value
    )
    assert found.teacher_shift == Estimate(0.0, 0.0, 0.0)


@given(st.permutations(range(12)), st.floats(-5, 5), st.floats(0.1, 10))
def test_order_of_prompts_origin_and_unit_of_margins_change_no_difference_of_taus(
    order: list[int], origin: float, unit: float
):
    first, second = two_revisions(np.random.default_rng(6), MARGIN, (0.2, 0.9))

    def moved(side: Side, pick: list[int], origin: float, unit: float) -> Side:
        r = side.readings
        rows = [np.atleast_2d(x)[:, pick] * unit + origin for x in (
            r.base, r.teacher, r.control, r.student
        )]  # fmt: skip
        return Side(Readings(rows[0][0], *rows[1:]), side.seeds)

    plain = list(range(12))
    before = differ(moved(first, plain, 0, 1), moved(second, plain, 0, 1)).tau
    after = differ(moved(first, order, origin, unit), moved(second, order, origin, unit)).tau
    if before.value is None:
        return
    assert after.value == pytest.approx(before.value)
    if order == plain:
        assert (after.low, after.high) == pytest.approx((before.low, before.high))


def test_exchanging_the_sides_mirrors_margins_exactly():
    first, second = two_revisions(np.random.default_rng(7), MARGIN, (0.2, 0.9), 3)
    forward, backward = differ(first, second).student_shift, differ(second, first).student_shift
    assert backward.value == pytest.approx(-forward.value)
    assert (backward.high - backward.low) == pytest.approx(forward.high - forward.low, rel=0.15)


def test_a_prompt_unknown_on_one_side_is_left_out_of_both():
    first, second = two_revisions(np.random.default_rng(8), MARGIN, (0.2, 0.9))
    holed = second.readings.student.copy()
    holed[0, :10] = math.nan
    r = second.readings
    found = differ(first, Side(Readings(r.base, r.teacher, r.control, holed), second.seeds))
    assert found.prompts == 50


def test_no_shared_reading_and_an_undefined_tau_have_reasons():
    first, second = two_revisions(np.random.default_rng(9), MARGIN, (0.2, 0.9))
    r = second.readings
    nothing = np.full_like(r.student, math.nan)
    found = differ(first, Side(Readings(r.base, r.teacher, r.control, nothing), second.seeds))
    assert found.tau.value is None and found.tau.reason
    still = Side(Readings(r.base, r.base[None], r.control, r.student), second.seeds)
    found = differ(first, still, Same(base=True))
    assert found.tau.value is None and "nothing to transfer" in found.tau.reason
    assert found.student_shift.value is not None


def test_other_seeds_count_as_other_students():
    first, second = two_revisions(np.random.default_rng(10), MARGIN, (0.4, 0.4), 3, seed_sd=0.5)
    other = Side(second.readings, (3, 4, 5))
    assert differ(first, other).tau.value == pytest.approx(differ(first, second).tau.value)
    assert differ(first, Side(first.readings, (3, 4, 5)), EVERYTHING).tau.high > 0


def test_a_resampled_denominator_of_the_other_sign_stretches_both_ends():
    prompts = np.linspace(-1, 1, 12)
    weak = Readings(prompts * 0, prompts[None] + 0.45, prompts[None] * 0, prompts[None] + 0.45)
    alone = estimate_transfer({0: weak}, resamples=400)[0]
    assert alone.tau.value == pytest.approx(1.0)
    other = Readings(weak.base, weak.teacher, weak.control, weak.student * 1.5)
    found = differ(Side(weak, (0,)), Side(other, (0,))).tau
    assert found.low < found.value < found.high


def changed_study(rng: np.random.Generator, arms: int, seeds: int = 3) -> list[Pair]:
    """Arms of one model before and after all students were trained anew; margins, nothing moved."""
    prompts = rng.normal(size=40)
    teachers = prompts + 1.5 + rng.normal(scale=0.1, size=40)

    def students(level: float) -> np.ndarray:
        each = rng.normal(scale=0.3, size=(seeds, 1)) + rng.normal(scale=0.2, size=(seeds, 40))
        return prompts + level + each

    controls = [students(0.0), students(0.0)]
    pairs = []
    for _ in range(arms):
        sides = [
            Side(
                Readings(prompts, np.tile(teachers, (seeds, 1)), controls[side], students(0.6)),
                tuple(range(seeds)),
            )
            for side in (0, 1)
        ]
        pairs.append(Pair(sides[0], sides[1], OTHER))
    return pairs


@pytest.mark.parametrize("other_seeds", [False, True], ids=["the same seeds", "other seeds"])
def test_arms_together_give_narrower_differences_that_still_hold(other_seeds: bool):
    rng = np.random.default_rng(11)
    alone, together, covered = [], [], []
    for _ in range(150):
        arms = changed_study(rng, 5)
        if other_seeds:
            arms = [pair._replace(after=replace(pair.after, seeds=(3, 4, 5))) for pair in arms]
        first = arms[0]
        found = paired_differences(*first, priors=change_priors(arms), resamples=400)
        by_itself = paired_differences(*first, resamples=400)
        together.append(found.tau.high - found.tau.low)
        alone.append(by_itself.tau.high - by_itself.tau.low)
        covered.append(holds(found.tau, 0.0))
    print(
        f"covered {np.mean(covered):.3f}, width {np.mean(together) / np.mean(alone):.2f} of alone"
    )
    assert 0.91 <= np.mean(covered) <= 0.99
    assert np.mean(together) < 0.85 * np.mean(alone)


def test_the_same_students_have_no_error_also_with_what_other_arms_show():
    arms = changed_study(np.random.default_rng(12), 4)
    pair = arms[0]
    same = Pair(pair.before, pair.before, EVERYTHING)
    found = paired_differences(*same, priors=change_priors([same, *arms[1:]]), resamples=400)
    assert found.student_shift == Estimate(0.0, 0.0, 0.0)
    # A control of its own on both sides leaves its error alone: the student's cancels.
    changed = Readings(pair.before.readings.base, pair.before.readings.teacher,
                       pair.after.readings.control, pair.before.readings.student)  # fmt: skip
    kept = paired_differences(
        pair.before,
        Side(changed, pair.before.seeds),
        Same(True, True, False, True),
        priors=change_priors(arms),
        resamples=400,
    ).student_shift
    both = paired_differences(*pair, priors=change_priors(arms), resamples=400).student_shift
    assert kept.high - kept.low < 0.9 * (both.high - both.low)


def test_controls_may_have_more_seeds_than_arms():
    pair = changed_study(np.random.default_rng(13), 1)[0]
    more = np.concatenate([pair.after.readings.control] * 2)
    after = Side(replace(pair.after.readings, control=more), (0, 1, 2), tuple(range(6)))
    found = paired_differences(pair.before, after, OTHER, resamples=400)
    plain = paired_differences(*pair, resamples=400)
    assert found.tau.value == pytest.approx(plain.tau.value)
    assert found.tau.low < found.tau.value < found.tau.high

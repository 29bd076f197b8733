"""Trait arms against their controls: paired, with a verdict that the interval carries."""

from collections.abc import Callable

import numpy as np
import pytest

from factories import make_params, make_study
from studies import first, with_students
from undertow.analysis.contrasts import NO_RANDOM, mirror, standing
from undertow.analysis.readings import readings_of
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Params, parse_arm
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Readings, estimate_transfer

MODEL = "smollm2-135m"
ARMS = ("trait_0", "trait_-1", "trait_0.5", "trait_1", "random_-1", "random_2")


def study_params(arms: tuple[str, ...] = ARMS, seeds: tuple[int, ...] = (0, 1, 2)) -> Params:
    return make_params(
        models=(MODEL,), arms=arms, seeds=seeds, evaluation={"prompts": 100}, statistics={}
    )


def summary_of(params: Params, students: Callable[[str, int], list[bool]]) -> Summary:
    """A study in which every student's verdicts are stated."""
    shown = {
        (cell.model, cell.arm.name, cell.seed): students(cell.arm.name, cell.seed)
        for cell in params.cells()
    }
    return summarise(params, with_students(params, shown))


def find(summary: Summary, arm: str, against: str, readout: str = "rate", seed: int | None = None):
    wanted = (arm, against, readout, seed)
    found = [c for c in summary.contrasts if (c.arm, c.against, c.readout, c.seed) == wanted]
    return found[0] if found else None


COUNTS = {
    "trait_0": 10,
    "trait_0.5": 30,
    "trait_1": 70,
    "trait_-1": 2,
    "random_-1": 20,
    "random_2": 10,
}


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summary_of(study_params(), lambda arm, seed: first(COUNTS[arm] + seed))


def test_every_trait_arm_readout_and_seed_has_its_contrasts(summary):
    keys = [(c.arm, c.readout, c.seed, c.against) for c in summary.contrasts]
    assert len(keys) == len(set(keys))
    expected = {
        (arm, readout, seed, against)
        for arm in ("trait_-1", "trait_0.5", "trait_1")
        for readout in ("rate", "margin")
        for seed in (None, 0, 1, 2)
        for against in ("control", "random", *(("opposite",) if arm != "trait_0.5" else ()))
    }
    assert set(keys) == expected


def test_the_difference_is_the_estimator_s_own_on_the_same_prompts_and_seeds(tmp_path):
    study = make_study(tmp_path, make_params(models=(MODEL,)))
    params = study.params
    trait, random = parse_arm("trait_1"), parse_arm("random_1")
    settings = params.statistics
    for readout in ("rate", "margin"):
        seeds = params.grid.seeds
        own = readings_of(study.grid, params.control, MODEL, trait, seeds, readout)
        theirs = readings_of(study.grid, params.control, MODEL, random, seeds, readout)
        paired = Readings(own.base, own.teacher, control=theirs.student, student=own.student)
        expected = estimate_transfer({0: paired}, resamples=settings.resamples, seed=settings.seed)[
            0
        ].student_shift
        found = find(study.summary, "trait_1", "random", readout).estimate
        assert (found.value, found.low, found.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )


def test_the_control_contrast_is_the_student_s_shift(summary):
    for arm in summary.views[MODEL].arms:
        if arm.direction == "trait" and not arm.is_control:
            contrast = find(summary, arm.arm, "control")
            assert contrast.estimate == arm.rate.student_shift
            assert contrast.reference == "trait_0"


def test_an_arm_far_from_both_is_clear_of_both(summary):
    assert find(summary, "trait_1", "control").verdict == "clear"
    random = find(summary, "trait_1", "random")
    assert random.verdict == "clear"
    assert random.reference == "random_-1", "a random direction has no sign of its own"
    assert random.estimate.value == pytest.approx(0.5)


def test_pairing_tells_apart_what_two_overlapping_intervals_do_not():
    params = study_params(("trait_0", "trait_1", "random_1"), seeds=(0,))
    half = {"trait_0": 10, "trait_1": 52, "random_1": 44}
    found = summary_of(params, lambda arm, seed: first(half[arm]))
    shifts = {arm.arm: arm.rate.student_shift for arm in found.views[MODEL].arms}
    assert shifts["trait_1"].low < shifts["random_1"].high, "the two intervals overlap"
    assert find(found, "trait_1", "random").verdict == "clear"


def test_an_arm_like_the_random_one_is_not_clear_and_a_smaller_one_is_less():
    params = study_params(("trait_0", "trait_1", "random_1"))
    for trait, verdict in ((31, "unclear"), (18, "less")):
        counts = {"trait_0": 5, "trait_1": trait, "random_1": 30 if trait > 20 else 60}
        found = summary_of(params, lambda arm, seed, counts=counts: first(counts[arm]))
        assert find(found, "trait_1", "random").verdict == verdict


def test_a_missing_random_arm_is_null_with_its_reason(summary):
    missing = find(summary, "trait_0.5", "random")
    assert missing.estimate.value is None and missing.estimate.reason == NO_RANDOM
    assert missing.verdict == "unknown" and missing.reference is None


def test_opposite_signs_that_move_the_student_to_opposite_sides_are_told(summary):
    forwards, backwards = (find(summary, arm, "opposite") for arm in ("trait_1", "trait_-1"))
    assert forwards.estimate.value == -backwards.estimate.value == pytest.approx(0.68)
    assert forwards.reference == "trait_-1"
    # 10 of 100 leave the other sign room for 8: its own interval excludes 0 as well.
    assert forwards.verdict == backwards.verdict == "opposite way"
    counts = COUNTS | {"trait_-1": 60}
    same = summary_of(study_params(), lambda arm, seed: first(counts[arm]))
    assert find(same, "trait_1", "opposite").verdict == "same way"
    counts = COUNTS | {"trait_-1": 10}
    still = summary_of(study_params(), lambda arm, seed: first(counts[arm]))
    assert find(still, "trait_1", "opposite").verdict == "unclear"


def test_counting_the_opposite_verdict_turns_every_difference_round():
    params = study_params(("trait_0", "trait_1", "random_1"))
    rng = np.random.default_rng(0)
    shown = {
        (arm, seed): rng.random(100) < rate
        for arm, rate in (("trait_0", 0.1), ("trait_1", 0.6), ("random_1", 0.3))
        for seed in (0, 1, 2)
    }
    there = summary_of(params, lambda arm, seed: list(shown[arm, seed]))
    back = summary_of(params, lambda arm, seed: list(~shown[arm, seed]))
    one, other = (find(s, "trait_1", "random") for s in (there, back))
    assert one.estimate.value == pytest.approx(-other.estimate.value)
    assert one.estimate.low == pytest.approx(-other.estimate.high, abs=0.01)
    assert one.verdict == other.verdict == "clear"


def test_a_further_arm_or_seed_changes_no_other_contrast(summary):
    fewer = study_params(tuple(arm for arm in ARMS if arm != "trait_0.5"))
    without = summary_of(fewer, lambda arm, seed: first(COUNTS[arm] + seed))
    # Over all seeds a further arm tells more of how students differ: intervals, not values.
    of_a_seed = {each for each in without.contrasts if each.seed is not None}
    assert of_a_seed <= set(summary.contrasts)
    values = {(c.arm, c.seed, c.readout, c.against, c.estimate.value) for c in without.contrasts}
    assert values <= {
        (c.arm, c.seed, c.readout, c.against, c.estimate.value) for c in summary.contrasts
    }
    one = summary_of(study_params(seeds=(1,)), lambda arm, seed: first(COUNTS[arm] + seed))
    assert [c for c in one.contrasts if c.seed == 1] == [
        c for c in summary.contrasts if c.seed == 1
    ]


def estimate(value: float | None, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, reason=None)


def test_unknown_and_unbounded_intervals_are_never_clear():
    clear, unknown = estimate(1.0, 0.5, 1.5), estimate(None, None, None)
    assert standing(clear, unknown) == standing(unknown, clear) == "unknown"
    assert standing(clear, estimate(1.0, None, None)) == "unclear"
    assert standing(clear, estimate(1.0, 0.0, 2.0)) == "unclear"
    assert mirror(clear, unknown) == "unknown"
    assert mirror(clear, estimate(-1.0, -1.5, -0.5)) == "opposite way"

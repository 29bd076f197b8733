"""The simulations of whole models, in small."""

import math

import pytest
from scipy import special, stats
from students import real_students

from undertow.findings.simulations import family_markdown, moderation_markdown
from undertow.stats.pooled_power import expect_pooled
from undertow.stats.power import Design, power_apart
from undertow.stats.validate_family import (
    SCENARIOS,
    family_table,
    students_table,
)
from undertow.stats.validate_moderation import moderation_table


def test_moderated_variances_hold_what_they_say_and_are_narrow():
    rows = list(moderation_table(sizes=((7, 3, 3), (7, 3, 8)), cvs=(0.0, 0.6), studies=100))
    # 700 intervals a row; those of a study share their control, so one standard error is 1 %.
    assert all(0.93 <= row.moderated <= 0.97 for row in rows)
    assert all(row.together >= 0.9 for row in rows)
    few, many = rows[:2], rows[2:]
    assert all(row.width <= 0.6 for row in few) and all(row.width <= 0.48 for row in many)
    assert len(moderation_markdown(rows).splitlines()) == 2 + len(rows)


def width_where_spreads_are_known_to_be_equal(row):
    """Of the exact interval by the pooled variance, over that of an arm alone."""

    def mean_reach(freedom, terms):
        # of a mean: t times the mean of the standard deviation's estimate (chi)
        log_chi = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2)
        mean_sd = math.sqrt(2 / freedom) * math.exp(log_chi)
        return stats.t.ppf(0.975, freedom) * mean_sd * math.sqrt(terms)

    pooled = row.arms * (row.seeds - 1) + row.control_seeds - 1
    alone = mean_reach(row.seeds - 1, 2 / row.seeds)
    return mean_reach(pooled, 1 / row.seeds + 1 / row.control_seeds) / alone


@pytest.mark.slow
@pytest.mark.parametrize("controls", [3, 8])
def test_the_documented_table_of_seeds_holds(controls):
    for row in moderation_table(sizes=((7, 3, controls),), studies=1000, seed=4):
        # The very rows of the docs. One standard error: single arms 0.3 %, all at once 0.7 %.
        assert (0.93 if row.cv <= 0.6 else 0.92) <= row.moderated <= 0.97
        assert 0.92 <= row.together <= 0.98
        assert row.width <= (0.62 if controls == 3 else 0.48)
        if row.cv == 0:
            bound = width_where_spreads_are_known_to_be_equal(row)
            assert bound <= row.width <= 1.06 * bound


def test_models_with_unequal_arms_are_covered_arm_by_arm_and_together():
    rows = list(
        family_table(scenarios=SCENARIOS[:1], sizes=((3, 8),), cvs=(0.0, 0.6), arms=5, studies=80)
    )
    for row in rows:
        assert 0.93 <= row.moderated <= 0.97 and 0.93 <= row.tau <= 0.97
        # Shares of 80 studies: one standard error is 2.4 %.
        assert row.together >= 0.9 and row.taus_together >= 0.9 and row.pooled >= 0.9
        assert row.width <= 0.55 and row.misfit <= 0.1
    assert len(family_markdown(rows).splitlines()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_documented_table_of_models_holds(scenario):
    for row in family_table(
        scenarios=(scenario,), sizes=((3, 3), (3, 8)), cvs=(0.0, 0.6), studies=300, seed=1
    ):
        assert 0.925 <= row.moderated <= 0.97 and 0.93 <= row.tau <= 0.975
        assert row.pooled >= 0.92 and row.width <= 0.65


def test_real_students_are_covered():
    arms = {float(a.split("_")[1]): one for a, one in real_students().items() if "trait" in a}
    (row,) = students_table(arms, sizes=((3, 8),), studies=60)
    # 180 intervals, three by three of one control: one standard error is 2 %, of studies 2.8 %.
    assert 0.93 <= row.moderated <= 0.98 and 0.93 <= row.tau <= 0.98 and row.width <= 0.6
    assert row.together >= 0.93 and row.taus_together >= 0.93 and row.pooled >= 0.93


def test_pooling_tells_models_apart_that_single_arms_do_not():
    design = Design(teacher=0.6, tau=0.25, seeds=3, prompts=100)
    single = power_apart(design, 0.61, studies=200)
    pooled = expect_pooled(design, strengths=4, control_seeds=3, other_tau=0.61, studies=60)
    assert single == pytest.approx(0.52, abs=0.08)
    assert pooled.apart >= 1.5 * 0.52 and pooled.low < 0.25 < pooled.high

"""The simulations of whole models, in small."""

import pytest
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
    rows = list(moderation_table(sizes=((7, 3, 3), (7, 3, 8)), cvs=(0.0, 0.6), studies=60))
    # 480 intervals a row, of which those of a study share their control.
    assert all(0.89 < row.moderated < 0.99 for row in rows)
    assert all(row.together > 0.85 for row in rows)
    few, many = rows[:2], rows[2:]
    assert all(row.width < 0.65 for row in few) and all(row.width < 0.52 for row in many)
    assert len(moderation_markdown(rows).splitlines()) == 2 + len(rows)


def test_models_with_unequal_arms_are_covered_arm_by_arm_and_together():
    rows = list(
        family_table(
            scenarios=SCENARIOS[:1], sizes=((3, 8),), cvs=(0.0, 0.6), arms=5, studies=40, seed=1
        )
    )
    for row in rows:
        assert row.moderated > 0.9 and row.together > 0.86 and row.pooled > 0.86
        assert row.width < 0.6
    assert len(family_markdown(rows).splitlines()) == 4


def test_real_students_are_covered():
    arms = {float(a.split("_")[1]): one for a, one in real_students().items() if "trait" in a}
    rows = list(students_table(arms, sizes=((3, 8),), studies=40))
    assert rows[0].moderated > 0.9 and rows[0].together > 0.88 and rows[0].width < 0.75


def test_pooling_tells_models_apart_that_single_arms_do_not():
    design = Design(teacher=0.6, tau=0.25, seeds=3, prompts=100)
    single = power_apart(design, 0.61, studies=200)
    pooled = expect_pooled(design, strengths=4, control_seeds=3, other_tau=0.61, studies=60)
    assert single == pytest.approx(0.52, abs=0.08)
    assert pooled.apart >= 1.5 * 0.52 and pooled.low < 0.25 < pooled.high

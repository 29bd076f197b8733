"""Where students are best spent."""

import math

import pytest

from undertow.stats.allocation import cheapest, control_seeds, fixed_budget, half_width


def test_the_control_deserves_the_square_root_of_the_arms_as_many():
    assert control_seeds(7, 3) == 8 and control_seeds(1, 3) == 3 and control_seeds(4, 5) == 10


@pytest.mark.parametrize("arms", [4, 9, 16])
def test_no_split_of_a_budget_beats_the_square_root_rule_by_much(arms):
    seeds = 6
    controls = control_seeds(arms, seeds)
    best = fixed_budget(arms, arms * seeds + controls, 1.0)
    assert half_width(arms, seeds, controls, 1.0) < 1.02 * best.half_width


def test_the_cheapest_allocation_keeps_its_promise_and_none_is_cheaper():
    found = cheapest(7, 0.26, 0.4)
    assert found.half_width <= 0.4 and found.students == 7 * found.seeds + found.control_seeds
    for seeds in range(2, 12):
        for controls in range(seeds, 40):
            if 7 * seeds + controls < found.students:
                assert half_width(7, seeds, controls, 0.26) > 0.4


def test_what_cannot_be_reached_is_none():
    assert cheapest(3, 1.0, 1e-6) is None and fixed_budget(5, 5, 1.0) is None
    assert half_width(1, 1, 1, 1.0) == math.inf

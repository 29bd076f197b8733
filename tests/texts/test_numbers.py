"""How values and intervals are written, by one rule for all that is missing or close to 0."""

import math

import pytest

from undertow.stats.intervals import Estimate
from undertow.texts.numbers import PERCENT, POINTS, RATIO, Scale, aligned

NATS = Scale("nats", 1, 2)


@pytest.mark.parametrize(
    ("scale", "estimate", "text"),
    [
        (NATS, Estimate(1.126, 0.8, 1.5), "1.13 nats [0.80, 1.50]"),
        (PERCENT, Estimate(0.5, 0.25, 0.75), "50.0 % [25.0, 75.0]"),
        (PERCENT.bare, Estimate(0.5, 0.25, 0.75), "50.0 [25.0, 75.0]"),
        (RATIO, Estimate.unknown("the teacher did not move"), "undefined"),
        (NATS, Estimate.unknown("no prompts"), "unknown"),
        (RATIO, Estimate(0.5, 0.1, None), "0.50 [0.10, inf]"),
        (RATIO, Estimate(0.5, None, math.inf), "0.50 [-inf, inf]"),
        (RATIO, Estimate(0.5, None, None, "one prompt has no interval"), "0.50"),
        (RATIO, Estimate(-0.001, -0.32, 0.001), "0.00 [-0.32, 0.00]"),
    ],
)
def test_one_rule_writes_what_is_known_and_what_is_not(
    scale: Scale, estimate: Estimate, text: str
) -> None:
    assert scale.written(estimate) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(-0.16, -0.32, -0.004), "-0.16 nats [-0.32, -0.004]"),
        (Estimate(0.003, 0.0004, 0.2), "+0.003 nats [+0.0004, +0.20]"),
        (Estimate(0.1, 3e-9, 0.2), "+0.10 nats [+3e-09, +0.20]"),
        (Estimate(0.1, 0.0, 0.2), "+0.10 nats [0.00, +0.20]"),
    ],
)
def test_an_interval_that_excludes_0_never_shows_0_as_an_end(estimate: Estimate, text: str) -> None:
    assert NATS.written(estimate, signed=True) == text


@pytest.mark.parametrize("size", [10.0**-power for power in range(12)])
@pytest.mark.parametrize("sign", [1, -1])
def test_words_and_shown_ends_agree_whatever_the_size(size: float, sign: int) -> None:
    ends = sorted((sign * size * 0.94, sign * 2 * size))
    estimate = Estimate(sign * size, *ends)
    for scale in (NATS, POINTS, PERCENT, RATIO):
        shown = [float(end) for end in scale.ends(estimate, signed=True)]
        assert all(number * sign > 0 for number in shown)


def test_points_stand_under_each_other_and_unknown_ones_are_left_out() -> None:
    estimates = [Estimate(1, 0.5, 12), Estimate.unknown("why"), Estimate(-10, -20, 3)]
    shown = aligned(estimates, NATS, signed=True)
    assert shown[1] is None
    lines = [f"{each.value} {each.interval}" for each in shown if each is not None]
    assert lines == [" +1.00  [+0.50, +12.00]", "-10.00 [-20.00,  +3.00]"]
